"""`bench check`: from a name to the contract of what it names, to a line for every promise; `bench doctor`: from folders to a
diagnosis."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.commands.completion import one_of
from bench.commands.options import CACHE_DIR, DATA_DIR, chosen_folders
from bench.errors import unknown_name

if TYPE_CHECKING:
    from bench.images.dataset import Folders

WORDS = {"method": "method", "dataset": "data set", "protocol": "protocol"}


@click.command("check", short_help="Try what every method, protocol or data set must keep to.")
@click.argument("name", shell_complete=one_of(*WORDS))
@DATA_DIR
@CACHE_DIR
def check_command(name: str, data_dir: Path | None, cache_dir: Path | None) -> None:
    """Try what every method, protocol or data set must keep to on the one of that name; exit 1 if it does not. A method may
    also be named by its file, as FILE.py:CLASS, a data set as folder:PATH. Methods learn a small stream of the mini world;
    streams and images are looked through, and zero-shot CLIP runs on a protocol."""
    raise SystemExit(check(name, chosen_folders(data_dir, cache_dir)))


@click.command(short_help="Examine the environment, the runs and the feature store.")
@click.argument("results", default="results", type=click.Path(path_type=Path))
@click.option(
    "--repair", is_flag=True, help="Mend what loses nothing: damaged files are set aside or made again, leftovers removed."
)
@DATA_DIR
@CACHE_DIR
def doctor(results: Path, repair: bool, data_dir: Path | None, cache_dir: Path | None) -> None:
    """Examine the environment, the runs in RESULTS and the feature store; exit 1 if something is wrong."""
    from bench.checks import doctor

    diagnosis = doctor.examine(results, chosen_folders(data_dir, cache_dir), repair)
    click.echo("\n".join([*diagnosis.lines, diagnosis.verdict]))
    if diagnosis.wrong:
        raise SystemExit(1)


def check(name: str, folders: "Folders") -> int:
    """Check everything of that name and return the exit code: 1 if a promise is broken."""
    kinds = _kinds(name)

    from bench.checks import dataset, method, protocol

    contracts = {"method": method, "dataset": dataset, "protocol": protocol}
    if len(kinds) > 1:
        click.echo(f"{name} names a {' and a '.join(WORDS[kind] for kind in kinds)}: all are checked")
    broken, tracebacks = 0, list[str]()
    for kind in kinds:
        results = contracts[kind].check(name, folders)
        tracebacks += [f"{WORDS[kind]} {name}: {result.name}\n\n{result.traceback}" for result in results if result.traceback]
        for result in results:
            click.echo(f"{'pass' if result.passed else 'FAIL'}  {result.name}" + (f": {result.detail}" if result.detail else ""))
        failed = sum(not result.passed for result in results)
        title = f"{WORDS[kind]} {name}" if len(kinds) > 1 else name
        click.echo(f"{title}: {len(results) - failed} passed, {failed} failed")
        broken += failed
    if tracebacks:
        click.echo(f"tracebacks: {_kept(name, tracebacks, folders)}")
    return 1 if broken else 0


def _kept(name: str, tracebacks: list[str], folders: "Folders") -> Path:
    """The file in which they are to be read."""
    from bench.system.files import write_atomically

    path = folders.cache / "tracebacks" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name).lstrip('._')}.txt"
    write_atomically(path, "\n".join(tracebacks))
    return path


def _kinds(name: str) -> list[str]:
    """What the name is the name of; a protocol may be made from its name."""
    from bench.streams import names
    from bench.streams.protocol import Protocol
    from bench.system import registry

    registered = [kind for kind in WORDS if registry.knows(kind, name)]
    if registered:
        return registered
    if names.looks_possible(name):
        found = names.find_protocol_or_dataset(name)  # raises if there is no such protocol
        return ["protocol" if isinstance(found, Protocol) else "dataset"]
    raise unknown_name("name", name, [known for kind in WORDS for known in registry.names(kind)])
