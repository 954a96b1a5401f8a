"""Train or evaluate: ``python train.py task=FrankaCabinet algo=hepo`` and any override of cfg/ (see README.md)."""

from __future__ import annotations

import sys

from hepo_isaac.runs.launch import typed

if __name__ == "__main__":
    sys.exit(typed(sys.argv[1:]))
