"""The dexterous tasks by name: a class for each record, as tasks/__init__.py lists them."""

from __future__ import annotations

from typing import Dict, Type

from . import blocks, doors, in_hand, throwing, tools
from .task import BiDex, task_of

RECORDS = (*throwing.RECORDS, *in_hand.RECORDS, *doors.RECORDS, *tools.RECORDS, *blocks.RECORDS)
TASKS: Dict[str, Type[BiDex]] = {record.name: task_of(record) for record in RECORDS}
