"""``python -m hepo_isaac <command>``, as hepo-isaac."""

from __future__ import annotations

import sys

from hepo_isaac.cli import main

if __name__ == "__main__":
    sys.exit(main())
