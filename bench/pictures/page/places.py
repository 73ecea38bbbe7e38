"""Where the runs of a page lay when it was written, as its reader may see it: relative to the working folder, never absolute."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.results import records
from bench.results.run_folder import RunFolder


@dataclass(frozen=True)
class Place:
    """Of one run."""

    folder: str  # its own: <results>/<protocol>/<method>/<run id>
    results: str  # what `bench run --out` was given


def places_of(paths: Iterable[Path]) -> dict[str, Place]:
    """Run id -> where it lies, of the finished runs at or below the paths."""
    found: dict[str, Place] = {}
    for path in paths:
        for file in records.find(path):
            run = RunFolder(Path(os.path.abspath(file)).parent)
            if run.finished:
                found.setdefault(run.run_id, Place(shown(run.path), shown(run.path.parents[2])))
    return found


def shown(folder: Path) -> str:
    """A folder as seen from the working folder; one that does not lie below it is called by its own name.

    >>> shown(Path.cwd() / "results" / "mini"), shown(Path.cwd()), shown(Path("/somewhere/else/results"))
    ('results/mini', '.', 'results')
    """
    here = Path.cwd()
    return folder.relative_to(here).as_posix() if folder.is_relative_to(here) else folder.name
