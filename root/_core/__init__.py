"""Private helpers that every package may use, and that import none of the packages."""
