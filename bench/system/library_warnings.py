"""Warnings while a command runs: those of installed libraries are for their authors, and name files that no user can mend.

They are not shown; those of this package and of plug-ins are one line each, without a place. Whoever wants all of them, as Python
writes them, asks Python: `python -W default -m bench ...` or PYTHONWARNINGS=default.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from bench.errors import one_line
from bench.system import method_source, registry


@contextlib.contextmanager
def left_to_their_authors() -> Iterator[None]:
    """Inside, warnings are shown in this way, unless Python was asked for something else."""
    if sys.warnoptions:
        yield
        return
    usual = warnings.formatwarning
    warnings.formatwarning = _formatted
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _formatted(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    return "" if _of_a_library(filename) else f"note: {one_line(str(message))}\n"


def _of_a_library(filename: str) -> bool:
    """Is it a file that is installed, and neither ours nor a plug-in's?"""
    path = Path(filename)
    if filename.startswith("<"):
        return True
    if not method_source.installed(path):
        return False
    plugins = {registry.target(kind, name).partition(".")[0].partition(":")[0] for kind in KINDS for name in registry.names(kind)}
    return not {"bench", *plugins} & {path.stem, *path.parts}


KINDS = ("method", "protocol", "dataset")
