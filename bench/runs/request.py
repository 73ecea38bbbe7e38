"""A study: many runs written down in one TOML file.

    protocols = ["mini60-6x10", "mini-mtil-order1"]
    methods = ["zero-shot", "coop", "cgil"]
    seeds = [0, 1, 2]
    out = "results/study"

    [set]                              # hyper-parameters that differ from the method's own
    cgil.vae_epochs = 100

    [grid]                             # every combination of these is a run
    coop.learning_rate = [0.001, 0.002]
    coop.epochs = [5, 10]

    recipe = ["tuned/coop.toml"]       # files that bench tune has written; [set] goes before them

    [[runs]]                           # more runs: as above, apart from what stands here
    methods = ["finetune"]
    set.finetune.lr = 3e-5

With [[runs]] tables, what stands above them is what they have in common; without any it is the study itself. The keys are
the options of `bench run`, and an option on the command line goes before the file.
"""

import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError, one_line, unknown_name
from bench.learning.setting_values import as_text
from bench.runs.assignments import Assignment
from bench.system.text_files import read_text

LARGEST_SEED = 2**63 - 1  # that results hold as a number
LARGEST_LIMIT = 10**9  # images of a class
MOST_PROCESSES = 64  # of one run, on one machine
UNREADABLE = "not a study file that can be read"
LARGEST = {"limit_train": LARGEST_LIMIT, "limit_test": LARGEST_LIMIT, "processes": MOST_PROCESSES}  # whole numbers from 1
SEEDS, NAMES = ("seeds", "order_seeds"), ("protocols", "methods", "ablate")  # a list, or one alone


@dataclass(frozen=True)
class Request:
    """What is asked for, by a command line or by one part of a study. The names are those of the options of `bench run`.

    `grid` has the values of one hyper-parameter in each of its items: every combination is a run. Every item of `ablate`
    (METHOD.FIELD=VALUE) adds runs of its method with that change on top.
    """

    protocols: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    order_seeds: tuple[int, ...] = (0,)
    backbone: str = "mini"
    pretrained: str | None = None
    device: str = "auto"
    precision: str = "auto"
    accelerate: str = "none"
    data: str = "real"
    limit_train: int | None = None
    limit_test: int | None = None
    out: Path = Path("results")
    recipe: tuple[Path, ...] = ()
    set: tuple[Assignment, ...] = ()
    grid: tuple[tuple[Assignment, ...], ...] = ()
    ablate: tuple[str, ...] = ()
    processes: int = 1
    keep_model: bool = False

    @property
    def synthetic(self) -> bool:
        """Are stand-in images wanted instead of the data sets' own?"""
        return self.data == "synthetic"


@dataclass(frozen=True)
class Study:
    """The parts of a study, and how it wants to be launched."""

    requests: tuple[Request, ...]
    slurm: dict[str, Any]
    methods: tuple[str, ...] = ()  # that the file names, whether options leave them out or not: its settings may be for any


ONE_OF = {
    "precision": ("auto", "float32", "bfloat16", "float16"),
    "accelerate": ("none", "graphs", "compile"),
    "data": ("real", "synthetic"),
}
KEYS = [field.name for field in fields(Request)]


def read(path: Path, given: dict[str, Any]) -> Study:
    """The file's study; `given` holds the options of the command line, which go before it."""
    return parse(read_text(path, UNREADABLE), path, given)


def parse(text: str, path: Path, given: dict[str, Any]) -> Study:
    """The study that the text of a file describes; path: how complaints name it."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path}: {UNREADABLE} ({one_line(error)})") from error
    slurm = tables.pop("slurm", {})
    tables.pop("paper", None)  # what the study of a paper's table says of the paper (bench/results/paper_tables.py)
    parts = tables.pop("runs", [{}])
    if not isinstance(slurm, dict):
        raise BenchError(f"{path}: slurm: a table [slurm] is wanted")
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise BenchError(f"{path}: runs: tables [[runs]] are wanted")
    common = _request(tables, Request(), path)
    requests, methods = [], list(common.methods)
    for part in parts:
        request = _request(part, common, path)
        methods += request.methods
        request = replace(request, **{k: v for k, v in given.items() if k not in ("set", "ablate")})
        request = replace(
            request, set=request.set + tuple(given.get("set", ())), ablate=request.ablate + tuple(given.get("ablate", ()))
        )
        for name in ("protocols", "methods"):
            if not getattr(request, name):
                raise BenchError(f"{path}: no {name} are named; for instance {name} = {_EXAMPLES[name]}")
        requests.append(request)
    return Study(tuple(requests), slurm, tuple(dict.fromkeys(methods)))


_EXAMPLES = {"protocols": '["mini60-6x10"]', "methods": '["zero-shot", "cgil"]'}


def _request(table: dict[str, Any], common: Request, path: Path) -> Request:
    """`common` with what the table says."""
    changes: dict[str, Any] = {}
    for key, value in table.items():
        if key not in KEYS:
            raise BenchError(f"{path}: {unknown_name('key', key, [*KEYS, 'runs', 'slurm'])}")
        where = f"{path}: {key}"
        if key in SEEDS:
            changes[key] = _few(value, _is_seed, f"whole numbers, 0 or larger, is wanted (up to {LARGEST_SEED})", where)
        elif key in NAMES:
            changes[key] = _few(value, _is_name, "names in quotes is wanted", where)
        elif key == "recipe":
            changes[key] = tuple(map(Path, _few(value, _is_name, "names of files in quotes is wanted", where)))
        elif key == "set":
            changes[key] = common.set + tuple(_assignments(value, where))
        elif key == "grid":
            changes[key] = common.grid + tuple(_axes(value, where))
        elif key in LARGEST:
            changes[key] = _positive(value, where, LARGEST[key])
        elif key == "keep_model":
            changes[key] = _yes_or_no(value, where)
        elif not isinstance(value, str) or not value or "\0" in value:
            raise BenchError(f"{where}: text in quotes is wanted")
        elif value not in ONE_OF.get(key, (value,)):
            raise BenchError(f"{where}: choose one of {', '.join(ONE_OF[key])}")
        else:
            changes[key] = Path(value) if key == "out" else value
    return replace(common, **changes)


def _few(value: Any, sound: Callable[[Any], bool], wanted: str, where: str) -> tuple[Any, ...]:
    """The items of a list, or the one that stands alone, each once."""
    values = value if isinstance(value, list) else [value]
    if not values or not all(map(sound, values)):
        raise BenchError(f"{where}: a list of {wanted}")
    return tuple(dict.fromkeys(values))


def _is_seed(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_SEED  # True is no seed


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _positive(value: Any, where: str, largest: int) -> int:
    if type(value) is not int or not 1 <= value <= largest:
        raise BenchError(f"{where}: a whole number, 1 or larger, is wanted (up to {largest})")
    return value


def _yes_or_no(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise BenchError(f"{where}: true or false is wanted")
    return value


def _assignments(table: Any, where: str) -> Iterable[Assignment]:
    for method, field, value in _by_method(table, where):
        yield Assignment(method, field, as_text(value, f"{where}.{method}.{field}"), f"{where}.{method}.{field}")


def _axes(table: Any, where: str) -> Iterable[tuple[Assignment, ...]]:
    for method, field, values in _by_method(table, where):
        place = f"{where}.{method}.{field}"
        if not isinstance(values, list) or not values:
            raise BenchError(f"{place}: a list of the values to try is wanted")
        yield tuple(Assignment(method, field, as_text(value, place), place) for value in values)


def _by_method(table: Any, where: str) -> Iterable[tuple[str, str, Any]]:
    if not isinstance(table, dict) or not all(isinstance(part, dict) for part in table.values()):
        raise BenchError(f"{where}: write it as METHOD.FIELD = VALUE, for instance cgil.vae_epochs = 100")
    for method, part in table.items():
        for field, value in part.items():
            yield method, field, value
