"""Errors that several packages raise and catch."""


class UnknownPartError(ValueError):
    """Error: a part of an object has no content by which it could be compared with another."""
