"""Errors that several packages raise and catch."""


class UnknownPartError(ValueError):
    """An object has a part of which nobody can tell whether another one is the same."""
