"""Finished policies: evaluation and films."""
