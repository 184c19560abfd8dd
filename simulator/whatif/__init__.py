"""What-if: the effect of other synchronies on a job whose step times were measured.

``grid`` holds the measured times, ``rows`` computes the rows of the table, ``training`` trains on the events,
``answer`` is the result for a user. Pictures, pages and statistics belong to ``analysis``.
"""
