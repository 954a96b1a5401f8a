"""The step loop, the task contract and the adapters to other libraries' environments."""
