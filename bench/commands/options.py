"""Options that several commands have, and how the values of options are read."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.errors import BenchError
from bench.runs.request import LARGEST_SEED

if TYPE_CHECKING:
    from bench.images.dataset import Folders

Option = Callable[[Callable[..., Any]], Callable[..., Any]]  # what click.option returns

PLURALS = {"methods": "method", "protocols": "protocol", "datasets": "dataset"}

DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path), envvar="BENCH_DATA", help="Data sets, one folder each.")
CACHE_DIR = click.option(
    "--cache-dir", type=click.Path(path_type=Path), envvar="BENCH_CACHE", help="Images and features kept between runs."
)

METHOD_OF_MODEL = click.option(
    "--method", metavar="FILE.py:CLASS", help="The model's method, where it is in a file that is not where it was."
)


def with_options(options: Iterable[Option]) -> Option:
    """Put these options on a command; its help lists them in this order."""

    def put_on(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(list(options)):  # as decorators below each other: the last one is put on first
            command = option(command)
        return command

    return put_on


def chosen_folders(data: Path | None, cache: Path | None) -> "Folders":
    """Where data sets lie, and where generated images and features are kept between runs."""
    from bench.images.folders import chosen

    return chosen(data, cache)


def split_names(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """The callback of an option that takes names separated by commas: each name once, in their order."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BenchError("an empty list of names was given")
    return tuple(dict.fromkeys(names))


def split_protocols(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """The same for names of protocols, whose templates may have commas."""
    if text is None:
        return None
    from bench.streams import names

    found = names.split_list(text)
    if not found:
        raise BenchError("an empty list of names was given")
    return tuple(dict.fromkeys(found))


def split_seeds(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    """The callback of an option that takes seeds separated by commas: each seed once, in their order."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise BenchError(f"{parameter.opts[0]} {text}: whole numbers separated by commas are wanted") from None
    if min(seeds) < 0 or max(seeds) > LARGEST_SEED:
        raise BenchError(f"{parameter.opts[0]} {text}: seeds are whole numbers from 0 to {LARGEST_SEED}")
    return tuple(dict.fromkeys(seeds))
