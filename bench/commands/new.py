"""`bench new`: a plug-in package that works as written, as a start for a method, data set or protocol of one's own."""

import keyword
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import click

from bench.commands.options import PLURALS
from bench.errors import BenchError
from bench.streams import names
from bench.system import registry
from bench.system.method_files import NAME, RESERVED


@dataclass(frozen=True)
class Kind:
    """What is particular to one kind of package."""

    words: str  # the kind in a sentence
    commands: tuple[str, ...]  # what to try after the installation; {name} is filled in


KINDS = {
    "method": Kind("method", ("bench check {name}", "bench run --methods {name},zero-shot --protocol mini60-6x10")),
    "dataset": Kind("data set", ("bench check {name}", "bench run --protocol {name}-3x2 --methods zero-shot,coop")),
    "protocol": Kind("protocol", ("bench check {name}", "bench run --protocol {name} --methods zero-shot,coop")),
}


@click.command("new", short_help="Write a package for a method, data set or protocol of your own.")
@click.argument("kind", type=click.Choice(list(PLURALS.values())))
@click.argument("name")
@click.option(
    "--out", "parent", default=".", show_default=True, type=click.Path(path_type=Path), help="Where its folder is made."
)
def new_command(kind: str, name: str, parent: Path) -> None:
    """Write a plug-in package that works as it is, in a new folder NAME: a start for a method, data set or protocol of
    your own."""
    click.echo(create(kind, name, parent))


def create(kind: str, name: str, parent: Path) -> str:
    """Write the package into a new folder of that name below `parent`; what was written, and what to do next."""
    _refuse_bad_name(name)
    folder = parent / name
    if not parent.is_dir():
        raise BenchError(f"{parent}: no such folder; make it, or choose another place with --out")
    if folder.is_symlink() or folder.exists():
        raise BenchError(f"{folder} exists already; choose another name, or another place with --out")
    _refuse_taken_name(kind, name)
    commands = [f"pip install ./{folder.as_posix()}" if not folder.is_absolute() else f"pip install {folder}"]
    commands += [command.format(name=name) for command in KINDS[kind].commands]
    files = _render(kind, name, commands)
    # written elsewhere and renamed, so that there is a whole package or none
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{name}.") as scratch:
        unfinished = Path(scratch) / name
        unfinished.mkdir()
        for file, text in files.items():
            (unfinished / file).write_text(text, encoding="utf-8")
        unfinished.rename(folder)
    return "\n".join([f"{folder}: {', '.join(files)}", "", "try it:", *(f"    {command}" for command in commands)])


def _refuse_bad_name(name: str) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or name in RESERVED:
        raise BenchError(f"{name!r} cannot be the name of a plug-in; use small letters, digits and hyphens, as in nearest-mean")


def _refuse_taken_name(kind: str, name: str) -> None:
    """A name that something else has already, as a plug-in, a package or a module: one of the two would be lost."""
    words = KINDS[kind].words
    owner = next((entry.package for entry in registry.entries(kind) if entry.name == name), None)
    if owner:
        raise BenchError(f"there is a {words} {name!r} already, in package {owner}; choose another name")
    if kind == "protocol" and _of_a_family(name):
        raise BenchError(f"there is a protocol {name!r} already, made from its name; choose another name")
    if _installed(name):
        raise BenchError(f"a package {name!r} is installed already; choose another name")
    if find_spec(_module(name)):
        raise BenchError(f"a module {_module(name)!r} can be imported already; choose another name")


def _of_a_family(name: str) -> bool:
    if not names.looks_possible(name):
        return False
    try:
        return bool(names.find(name))
    except BenchError:
        return False


def _installed(name: str) -> bool:
    try:
        return bool(distribution(name))
    except PackageNotFoundError:
        return False


def _module(name: str) -> str:
    return name.replace("-", "_")


def _target(kind: str, name: str) -> str:
    """What the entry point stands for: a class for a method, else an object."""
    return "".join(part.capitalize() for part in name.split("-")) if kind == "method" else kind


def _render(kind: str, name: str, commands: list[str]) -> dict[str, str]:
    """File name -> text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bench.commands", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    module = _module(name)
    facts = {
        "name": name,
        "module": module,
        "target": _target(kind, name),
        "group": registry.KINDS[kind],
        "words": KINDS[kind].words,
        "commands": commands,
    }
    templates = {
        f"{module}.py": f"{kind}.py",
        f"test_{module}.py": f"{kind}_test.py",
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
    }
    return {file: environment.get_template(f"{template}.jinja").render(facts) for file, template in templates.items()}
