"""The small tasks of a few equations whose optimum is known (docs/suite.md)."""
