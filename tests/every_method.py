"""The methods for which a promise is tested: some by `make test`, all by `make test-all`."""

from collections.abc import Iterable
from typing import Any

import pytest

from bench.system import registry

# presets of other methods: the same code with other settings
PRESETS = ("clap-coop-novi", "clap-novi", "l2-wc", "lwf-vr", "we", "zscl-minus", "zscl-star")


def every_method(quick: Iterable[str], names: Iterable[str] | None = None) -> list[Any]:
    """Parameters for a test of every method, or of those named; all but the quick ones are left to `make test-all`."""
    quick = set(quick)
    unknown = quick - set(registry.names("method"))
    assert not unknown, f"no such method: {', '.join(sorted(unknown))}"
    chosen = registry.names("method") if names is None else names
    return [pytest.param(name, marks=() if name in quick else pytest.mark.thorough) for name in chosen]
