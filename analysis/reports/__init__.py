"""Reports: one HTML file of one or several results."""
