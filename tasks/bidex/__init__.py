"""Dexterous-hand tasks: two Shadow hands (or one), an object, and one record a task (docs/bidex.md).

catalogue.py has them by name; throwing.py and its like hold records (record.py); task.py is the one environment class,
with measures.py (numbers, families of h), hand.py and observation.py.
"""
