"""Experiments and their results: specs, TOML, and how a run is put together."""
