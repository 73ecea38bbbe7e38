"""`bench profile`: from options, most of them those of `bench run`, to runs, to their profiles, to text."""

from collections.abc import Callable
from typing import Any

import click

from bench.commands import run as run_command

AS_IN_RUN = (
    "protocols", "methods", "seeds", "order_seeds", "backbone", "pretrained", "device", "precision", "set", "ablate",
    "data", "limit_train", "limit_test", "threads",
)  # fmt: skip
OPTIONS = [
    click.option("--stored-features", is_flag=True, help="Use the feature store of the cache folder.  [an empty one]"),
    click.option("--flops/--no-flops", default=True, help="Carry out every run a second time to count its operations.  [on]"),
    click.option("--format", "format_", default="text", show_default=True, type=click.Choice(["text", "json"])),
]


def options(command: Callable) -> Callable:
    """Put the options of `bench profile` on a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    shared = click.command()(run_command.options(lambda **given: None)).params
    command.__click_params__ += [option for option in reversed(shared) if option.name in AS_IN_RUN]
    return command


def run(given: dict[str, Any], folders) -> str:
    """Carry out the command and return what it prints; `given` holds the options by name."""
    asked = run_command.request_of(given)
    run_command.refuse_unknown(asked.protocols, asked.methods)

    from bench.runs import plan
    from bench.runs.facts import Facts
    from bench.runs.profiling import profile

    with Facts(folders, here=True) as facts:
        runs, notes = plan.build(facts.resolved(asked), facts)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    threads = given["threads"] or (1 if given["backbone"] == "mini" else None)
    found = profile.profile(runs, folders, threads, given["flops"], given["stored_features"])
    return {"text": profile.as_text, "json": profile.as_json}[given["format_"]](*found)
