"""May anything be fetched from a network? One answer for data sets, weights and reference data."""

import contextlib
import os
from collections.abc import Iterator

VARIABLES = ("BENCH_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # the hub's client heeds the last two
_OFF = ("", "0", "false", "no", "off")
_forbidden: list[str] = []  # why, by code that only looks


def offline() -> str:
    """Why nothing may be fetched, in a few words; empty if it may be."""
    if _forbidden:
        return _forbidden[-1]
    for name in VARIABLES:
        if os.environ.get(name, "").strip().lower() not in _OFF:
            return f"{name} is set"
    return ""


@contextlib.contextmanager
def nothing_fetched(why: str) -> Iterator[None]:
    """For code that only wants to know whether something is there."""
    _forbidden.append(why)
    try:
        yield
    finally:
        _forbidden.pop()
