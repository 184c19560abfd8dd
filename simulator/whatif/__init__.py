"""What another synchrony would have done to a job whose step times were measured.

``grid`` holds the measured times, ``rows`` works out the rows of the table, ``training`` trains on them,
``answer`` is what a user gets. Pictures, pages and statistics belong to ``analysis``.
"""
