"""Experiments: their specs, runs, results and identities."""
