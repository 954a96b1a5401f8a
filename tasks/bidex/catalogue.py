"""The dexterous tasks by name: a class for each record, as tasks/__init__.py lists them."""

from __future__ import annotations

from typing import Dict, Type

from . import in_hand, throwing
from .task import BiDex, task_of

TASKS: Dict[str, Type[BiDex]] = {record.name: task_of(record) for record in (*throwing.RECORDS, *in_hand.RECORDS)}
