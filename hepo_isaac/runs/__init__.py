"""Everything about one run on disk: folder, checkpoints, tracking, progress, plots, video, evaluation.

This package may import every other one; nothing below it imports it.
"""
