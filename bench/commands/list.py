"""`bench list`: names and one line each, without importing any plug-in."""

from textwrap import indent

import click
from tabulate import tabulate

from bench.commands.options import PLURALS
from bench.system import registry


@click.command("list", short_help="List methods, protocols, data sets, backbones, metrics, tables.")
@click.argument("what", default="all", type=click.Choice(["all", *PLURALS, "backbones", "metrics", "tables"]))
def list_command(what: str) -> None:
    """List what there is: methods, protocols, datasets, backbones, metrics, papers' tables."""
    for plural, kind in PLURALS.items():
        if what in ("all", plural):
            click.echo(registered(plural, kind))
    if what in ("all", "backbones"):
        click.echo(backbones(every=what == "backbones"))
    if what in ("all", "metrics"):
        click.echo(metrics())
    if what in ("all", "tables"):
        from bench.commands.paper_pages import listed

        click.echo(listed())


def registered(title: str, kind: str) -> str:
    """Everything registered of a kind; a plug-in that cannot work is named with the reason."""
    rows = []
    for entry in registry.entries(kind):
        origin = "" if entry.package == registry.BUILT_IN else f"[{entry.package}] "
        rows.append([entry.name, origin + (f"BROKEN: {entry.broken}" if entry.broken else entry.summary)])
    listed = f"{title}:\n" + indent(tabulate(rows, tablefmt="plain"), "  ") + "\n"
    return listed + _families() if kind == "protocol" else listed


def _families() -> str:
    """The protocols that have no entry of their own: a line for each rule that makes them."""
    rows = []
    for entry in registry.entries("protocol-family"):
        rows.append([f"BROKEN: {entry.broken}" if entry.broken else entry.summary])
    return (
        "  ... and\n"
        + indent(tabulate(rows, tablefmt="plain"), "    ")
        + "\n  each also with options after a +, for instance +replay-free (bench show NAME lists them)\n"
    )


def backbones(every: bool) -> str:
    """Backbone names: all of them, or a hint at how to see them."""
    from bench.clip.architectures import architectures

    found = architectures()
    if every:
        return "backbones:\n" + "\n".join(f"  {name}" for name in found) + "\n"
    others = f"... and {len(found) - 1} of open_clip's (bench list backbones)"
    return f"backbones:\n  mini  the miniature CLIP that ships with the package\n  {others}\n"


def metrics() -> str:
    """Every metric with its unit, direction and meaning."""
    from bench.results.metrics import METRICS

    rows = [[name, metric.summary] for name, metric in METRICS.items()]
    return "metrics:\n" + indent(tabulate(rows, tablefmt="plain"), "  ") + "\n"
