"""Fits: distributions of measured times and of staleness."""
