"""Tests of whole tasks and trainings on the fake Isaac Gym; ``make test-py38`` runs them under Python 3.8, too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sim"))  # makes fake_gym importable
