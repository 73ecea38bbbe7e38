"""What the option --measured of `bench table` means: results that others have handed in, and where they lie."""

from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.results.measured.schema import MeasuredRun

VIEWS = ("summary", "tasks")


def beside(paths: tuple[Path, ...], measured: str | None, view: str) -> "tuple[tuple[Path, ...], list[MeasuredRun] | None]":
    """(the paths of own results, the measured rows to show beside them; None if nobody asked).

    The value of an option that may have none is easily taken for one: a folder behind --measured is one of own results.
    """
    from bench.results.measured import files

    for path in paths:
        if path.is_file() and files.is_measured(path):
            raise BenchError(f"{path}: results that were handed in; write --measured {path} to show them")
    if measured is None:
        if not paths:
            raise BenchError("Missing argument 'PATHS...'. (bench table --help says more)")
        return paths, None
    if view not in VIEWS:
        raise BenchError(f"--view {view} has own runs only; leave --measured out, or take --view {' or '.join(VIEWS)}")
    given = Path(measured) if measured else None
    if given is not None and not given.is_dir():
        return paths, _of_file(given)
    found = files.read_all(files.shipped())
    if not found:
        raise BenchError("no measured results ship with this version; --measured FILE takes a table of bench publish")
    return (given, *paths) if given else paths, found


def _of_file(path: Path) -> "list[MeasuredRun]":
    """The rows of a file of somebody's; BenchError unless it is in order."""
    from bench.checks import measured

    runs, complaints = measured.check(path)
    if complaints:
        more = f" (and {len(complaints) - 1} more rows)" if len(complaints) > 1 else ""
        raise BenchError(f"{path}: {complaints[0]}{more}; bench publish --check says more")
    return runs
