"""The Python API: what ``hepo_isaac.make``, ``load``, ``train`` and ``evaluate`` are (docs/python_api.md)."""
