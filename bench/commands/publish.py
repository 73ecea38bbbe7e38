"""`bench publish`: finished runs as a table that can be handed in, and the check of such a table."""

from pathlib import Path

import click

from bench.errors import BenchError, printable


@click.command("publish", short_help="Write finished runs as one checked table for others.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("-o", "--out", "file", type=click.Path(path_type=Path), help="The table, for instance measured.csv.")
@click.option("--who", metavar="NAME", default="", help="Who measured them: a person or a group.  [anonymous]")
@click.option("--leave-out-refused", "leave_out", is_flag=True,
              help="Write the runs that can be published, and name those that are left out.")  # fmt: skip
@click.option("--check", "checked", is_flag=True, help="Check tables instead, files or folders of them; writes nothing.")
def publish_command(paths: tuple[Path, ...], file: Path | None, who: str, leave_out: bool, checked: bool) -> None:
    """Write one checked table of the finished runs at or below PATHS, which others can read with bench table --measured.

    A run that is unfinished, damaged or edited, limited, on synthetic or validation images, or of a method or protocol that does
    not ship with the harness is refused by name, and nothing is written.
    """
    if not paths:
        raise BenchError("no path was given; name results folders, or with --check tables that bench publish has written")
    if checked:
        if file or who or leave_out:
            raise BenchError("--check only reads; it takes no -o, --who or --leave-out-refused")
        _check(paths)
        return
    if file is None:
        raise BenchError("-o FILE names the table to write, for instance -o measured.csv")
    _publish(paths, file, _name(who), leave_out)


def _publish(paths: tuple[Path, ...], file: Path, who: str, leave_out: bool) -> None:
    from bench.checks import measured
    from bench.results.measured import files

    runs, refused = measured.collect(paths, who)
    for line in refused:
        click.echo(f"bench: {'left out' if leave_out and runs else 'refused'}: {printable(line)}", err=True)
    total = len(runs) + len(refused)
    if refused and not runs:
        raise BenchError(f"{len(refused)} of {total} runs cannot be published, nothing was written")
    if refused and not leave_out:
        others = "--leave-out-refused writes the others"
        raise BenchError(f"{len(refused)} of {total} runs cannot be published, nothing was written ({others})")
    files.write(file, runs)
    methods, protocols = (len({run[name] for run in runs}) for name in ("method", "protocol"))
    left = f"; {len(refused)} of {total} left out" if refused else ""
    of = f"of {_counted(methods, 'method')} on {_counted(protocols, 'protocol')}"
    click.echo(f"{file}: {_counted(len(runs), 'run')} {of}{left}")


def _check(paths: tuple[Path, ...]) -> None:
    from bench.checks import measured
    from bench.results.measured import files

    wrong = 0
    paths = tuple(file for path in paths for file in (_tables_in(path) if path.is_dir() else [path]))
    for path in paths:
        runs, complaints = measured.check(path)
        for line in complaints:
            click.echo(f"bench: {path}: {printable(line)}", err=True)
        wrong += len(complaints)
        if not complaints:
            click.echo(f"{path}: {_counted(len(runs), 'run')}, in order")
    if wrong:
        raise BenchError(f"{_counted(wrong, 'row')} not in order; bench publish writes such tables, they are not to be edited")
    if len(paths) > 1:
        files.read_all(paths)


def _tables_in(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.csv"))
    if not found:
        raise BenchError(f"{folder}: no table (*.csv) lies there; bench publish writes them")
    return found


def _name(who: str) -> str:
    """The name as it will stand in tables; spreadsheets would take one that starts with a sign for a formula."""
    if printable(who) != who or len(who) > 100 or who[:1] in ("=", "+", "-", "@"):
        raise BenchError("--who: a name in one line of at most 100 characters is wanted, which starts with no sign")
    return who


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
