"""Reports: one HTML file of one or several results.

They arrange the numbers and pictures of the other packages of analysis, and may use all of them.
Not allowed: new statistics or pictures, scripts, and anything that a browser would load.
"""
