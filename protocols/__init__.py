"""Protocols: streams of tasks, one module a family; data sets are in `protocols.datasets`."""
