"""Dexterous-hand tasks: two Shadow hands (or one), an object, and one record a task (docs/bidex.md).

hands_only.py and tables.py hold the records (record.py); task.py is the one environment class, with measures.py
(numbers, families of h) and hand.py.
"""

from __future__ import annotations

from . import hands_only, tables
from .task import task_of

TASKS = {record.name: task_of(record) for record in (*hands_only.RECORDS, *tables.RECORDS)}
