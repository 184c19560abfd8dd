"""Reports: one HTML file of one or several results.

They arrange what the other rooms compute and draw, and may use all of them.
What may not enter: statistics or pictures of their own, scripts, and anything that a browser would load.
"""
