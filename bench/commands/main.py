"""The `bench` command. Thin: every command hands over to the module that does the work.

Heavy imports (torch, pandas) happen inside the commands, so that `bench --help` and `bench list` answer at once.
"""

import errno
from pathlib import Path

import click
from click.exceptions import NoArgsIsHelpError

from bench import __version__
from bench.commands import profile as profile_command
from bench.commands import run as run_command
from bench.commands.run import split_names
from bench.errors import BenchError, printable
from bench.reports.formats import FORMATS

PLURALS = {"methods": "method", "protocols": "protocol", "datasets": "dataset"}


class _Commands(click.Group):
    """Turns what the user can mend into one line on stderr and exit code 2."""

    def make_context(self, *arguments, **extra) -> click.Context:
        try:
            return super().make_context(*arguments, **extra)
        except NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            _complain(error.format_message())

    def invoke(self, context: click.Context):
        try:
            return super().invoke(context)
        except NoArgsIsHelpError:
            raise
        except click.ClickException as error:
            command = getattr(error, "ctx", None)
            _complain(error.format_message() + (f" ({command.command_path} --help says more)" if command else ""))
        except KeyboardInterrupt:
            click.echo("bench: interrupted", err=True)
            raise SystemExit(130) from None
        except BenchError as error:
            _complain(str(error))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                _complain(
                    f"no space left on the disk ({error.filename or 'results or cache folder'}); free some and repeat the command"
                )
            _complain(f"{error.filename or 'file'}: {error.strerror or error}")


def _complain(message: str) -> None:
    click.echo(f"bench: {printable(message)}", err=True)
    raise SystemExit(2)


def _folders(data: Path | None, cache: Path | None):
    """Where data sets lie, and where generated images and features are kept between runs."""
    from bench.images.folders import chosen

    return chosen(data, cache)


DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path), envvar="BENCH_DATA", help="Data sets, one folder each.")
CACHE_DIR = click.option(
    "--cache-dir", type=click.Path(path_type=Path), envvar="BENCH_CACHE", help="Images and features kept between runs."
)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bench")
def main() -> None:
    """Benchmark continual learning of CLIP: run methods on a stream, compare them in a table."""


@main.command()
@run_command.options
@DATA_DIR
@CACHE_DIR
def run(data_dir, cache_dir, **given) -> None:
    """Run methods on protocols and print the table. A finished run is skipped, an unfinished one continued."""
    raise SystemExit(run_command.run(given, _folders(data_dir, cache_dir)))


@main.command()
@profile_command.options
@DATA_DIR
@CACHE_DIR
def profile(data_dir, cache_dir, **given) -> None:
    """Measure where the time of runs goes, phase by phase, and how far it is from what the device could do. Results are
    thrown away. The first method encodes the images, the others find them in the feature store."""
    click.echo(profile_command.run(given, _folders(data_dir, cache_dir)))


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--metrics", callback=split_names, help="Metrics separated by commas (bench list metrics).")
@click.option("--format", "format_", default="plain", show_default=True, type=click.Choice(list(FORMATS)))
@click.option("--view", default="summary", show_default=True, type=click.Choice(["summary", "tasks", "matrix", "cost"]),
              help="One number a metric, accuracies per task, whole matrices, or seconds, memory and parameters.")  # fmt: skip
@click.option("--sort", metavar="METRIC", help="Metric that orders the methods.")
@click.option("--published", is_flag=True, help="Put the numbers of papers beside the measured ones.")
def table(paths, metrics, format_, view, sort, published) -> None:
    """Compare the methods whose results lie at or below PATHS. A file with accuracies that another program measured (as bench
    metrics reads it) gets rows of its own, marked as foreign."""
    from bench.reports import costs, foreign_rows, tables
    from bench.results import loaded
    from bench.results import published as publications

    own, files = foreign_rows.split(paths)
    if view == "cost":
        if files:
            raise BenchError(f"{files[0]}: another program measured it, its cost is not known; leave it out of --view cost")
        click.echo(costs.render(own, format_))
        return
    results = loaded.load(own) if own else loaded.nothing()
    found = tables.render(
        results.table, metrics, format_, view, sort,
        results.samples_of, publications.load() if published else None, foreign_rows.load(files), results.manifests,
    )  # fmt: skip
    click.echo(found)


@main.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--order", callback=split_names,
              help="Task names in learning order, separated by commas, if the file does not have it.")  # fmt: skip
@click.option("--unit", type=click.Choice(["percent", "fraction"]), help="Unit of the accuracies.  [found out]")
@click.option("--format", "format_", default="plain", show_default=True, type=click.Choice(list(FORMATS)))
def metrics(files, order, unit, format_) -> None:
    """Print every metric that accuracy matrices determine: CSV files and arrays of any origin, or another toolkit's results.
    "-" reads standard input."""
    from bench.reports import foreign_metrics
    from bench.results.foreign import accuracy_files

    matrices = [one for _, one in accuracy_files.read_all(files, order, unit)]
    click.echo(foreign_metrics.report(matrices, format_))


@main.command("list")
@click.argument("what", default="all", type=click.Choice(["all", *PLURALS, "backbones", "metrics"]))
def list_(what) -> None:
    """List what there is: methods, protocols, datasets, backbones, metrics."""
    from bench.commands import list as listing

    for plural, kind in PLURALS.items():
        if what in ("all", plural):
            click.echo(listing.registered(plural, kind))
    if what in ("all", "backbones"):
        click.echo(listing.backbones(every=what == "backbones"))
    if what in ("all", "metrics"):
        click.echo(listing.metrics())


@main.command()
@click.argument("name")
def show(name) -> None:
    """Show a method, protocol, data set or metric: what it is, where it comes from, every number it is run with."""
    from bench.commands import show as showing

    click.echo(showing.show(name))


@main.command()
@click.argument("name")
@DATA_DIR
@CACHE_DIR
def check(name, data_dir, cache_dir) -> None:
    """Try what every method, protocol or data set must keep to on the one of that name; exit 1 if it does not. Methods learn
    a small stream of the mini world; streams and images are looked through, and zero-shot CLIP runs on a protocol."""
    from bench.commands import check as check_command

    raise SystemExit(check_command.run(name, _folders(data_dir, cache_dir)))


@main.command()
@click.argument("kind", type=click.Choice(list(PLURALS.values())))
@click.argument("name")
@click.option(
    "--out", "parent", default=".", show_default=True, type=click.Path(path_type=Path), help="Where its folder is made."
)
def new(kind, name, parent) -> None:
    """Write a plug-in package that works as it is, in a new folder NAME: a start for a method, data set or protocol of
    your own."""
    from bench.commands import new as new_package

    click.echo(new_package.create(kind, name, parent))


@main.command()
@click.argument("arguments", metavar="A B [PATHS]...", nargs=-1, required=True)
@click.option("--ranking", is_flag=True, help="Rank all methods over all protocols at or below the paths instead.")
@click.option("--metrics", callback=split_names, help="Metrics separated by commas; for --ranking one.  [those of the tables]")
@click.option("--format", "format_", default="plain", show_default=True, type=click.Choice(list(FORMATS)))
def compare(arguments, ranking, metrics, format_) -> None:
    """Compare two methods, run by run and test image by test image. A and B are methods as the tables print them, found
    at or below PATHS [results], or folders of runs."""
    if ranking:
        from bench.reports import ranking as rankings

        if metrics and len(metrics) > 1:
            raise BenchError(f"--ranking goes by one metric, not {len(metrics)}")
        click.echo(rankings.render([Path(path) for path in arguments], metrics[0] if metrics else None, format_))
        return
    from bench.reports import compare as comparison

    if len(arguments) < 2:
        raise BenchError(f"two methods or folders are compared, only {arguments[0]!r} was given")
    a, b, *paths = arguments
    click.echo(comparison.render(a, b, [Path(path) for path in paths] or [Path("results")], metrics, format_))


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--baseline", required=True, metavar="FILE.csv|NAME", type=click.Path(path_type=Path),
              help="What to compare with: a file, or a baseline that ships with the package.")  # fmt: skip
@click.option("--tolerance", metavar="EXPR", help="E.g. last:1.0,ci_transfer:5%,2  [from the spread of the baseline's runs]")
@click.option("--metrics", callback=split_names, help="Compare, or store, only these metrics, separated by commas.")
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path), help="Write JUnit XML.")
@click.option("--markdown", metavar="FILE", type=click.Path(path_type=Path), help="Write Markdown.")
@click.option("--update", is_flag=True, help="Replace the baseline by these results.")
def gate(paths, baseline, tolerance, metrics, junit, markdown, update) -> None:
    """Compare fresh results at or below PATHS with a stored baseline; exit 1 if something got worse."""
    from bench.gate import baseline as baselines
    from bench.gate import comparison as gates
    from bench.gate import report as gate_report

    if update:
        outcome, done = gates.update(paths, baseline, metrics)
        if outcome:
            click.echo(gate_report.moved(outcome) + "\n")
        click.echo(done)
        return
    outcome = gates.gate(paths, baselines.locate(baseline), tolerance, metrics)
    click.echo(gate_report.text(outcome))
    gate_report.publish(outcome, junit, markdown)
    if not outcome.passed:
        raise SystemExit(1)


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", "folder", required=True, type=click.Path(path_type=Path), help="Folder for the pictures.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND",
              help="accuracy, future, matrix, reliability, cost or ranking; may be repeated.  "
                   "[all that can be drawn]")  # fmt: skip
@click.option("--format", "format_", default="png", show_default=True, type=click.Choice(["png", "svg", "pdf"]))
def plot(paths, folder, kinds, format_) -> None:
    """Draw the runs at or below PATHS, one protocol a picture."""
    from bench.pictures import plots

    for file in plots.plot(paths, folder, kinds, format_):
        click.echo(file)


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", "file", default="report.html", show_default=True, type=click.Path(path_type=Path), help="The page.")
def report(paths, file) -> None:
    """Write one HTML page about the runs at or below PATHS: tables, pictures, manifests, and how to repeat each run."""
    from bench.pictures.page import write as reports

    click.echo(reports.write(paths, file))


@main.command()
@click.argument("results", default="results", type=click.Path(path_type=Path))
@click.option(
    "--repair", is_flag=True, help="Mend what loses nothing: damaged files are set aside or made again, leftovers removed."
)
@DATA_DIR
@CACHE_DIR
def doctor(results, repair, data_dir, cache_dir) -> None:
    """Examine the environment, the runs in RESULTS and the feature store; exit 1 if something is wrong."""
    from bench.checks import environment as doctors

    diagnosis = doctors.examine(results, _folders(data_dir, cache_dir), repair)
    click.echo("\n".join([*diagnosis.lines, diagnosis.verdict]))
    if diagnosis.wrong:
        raise SystemExit(1)


@main.group("data")
def data_() -> None:
    """Data sets on disk: what is there, how to get the others, whether they are whole."""


@data_.command("list")
@DATA_DIR
def list_data(data_dir) -> None:
    """List all data sets: what is there, and where the others are looked for."""
    from bench.commands import data as data_command

    click.echo(data_command.listing(_folders(data_dir, None).data))


@data_.command("get")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@DATA_DIR
def get_data(names, data_dir) -> None:
    """Download data sets, or say what to download by hand and where to put it."""
    from bench.commands import data as data_command

    for name in names:
        click.echo(data_command.get(name, _folders(data_dir, None).data))


@data_.command("check")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--quick", is_flag=True, help="Count the images without opening them.")
@DATA_DIR
@CACHE_DIR
def check_data(names, quick, data_dir, cache_dir) -> None:
    """Compare data sets with the official ones: files, numbers of images, classes, whole images; exit 1 if they differ."""
    from bench.commands import data as data_command

    findings = [data_command.check(name, _folders(data_dir, cache_dir), not quick) for name in names]
    click.echo("\n".join(line for finding in findings for line in finding.lines))
    if any(finding.wrong for finding in findings):
        raise SystemExit(1)
