"""`bench profile`: from options, most of them those of `bench run`, to runs, to their profiles, to text."""

from collections.abc import Callable
from typing import Any

import click

from bench.commands import run as run_command
from bench.errors import BenchError

AS_IN_RUN = (
    "protocols", "methods", "seeds", "order_seeds", "backbone", "pretrained", "device", "precision", "assignments", "ablations",
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
    for option, name in (("--protocol", "protocols"), ("--methods", "methods")):
        if not given[name]:
            raise BenchError(f"{option} is wanted")
    run_command.refuse_unknown(given["protocols"], given["methods"])

    from pathlib import Path

    from bench.clip import backbone as backbones
    from bench.runs import plan
    from bench.runs.facts import Facts
    from bench.runs.profiling import profile

    device = backbones.resolve_device(given["device"])
    as_given = {name: given[name] for name in AS_IN_RUN if name not in ("data", "threads")}
    as_given |= {"device": device, "precision": backbones.resolve_precision(given["precision"], device)}
    with Facts(folders.cache, here=True, data=folders.data) as facts:
        runs, notes = plan.build(**as_given, synthetic=given["data"] == "synthetic", out=Path(), facts=facts)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    threads = given["threads"] or (1 if given["backbone"] == "mini" else None)
    found = profile.profile(runs, folders, threads, given["flops"], given["stored_features"])
    return {"text": profile.as_text, "json": profile.as_json}[given["format_"]](*found)
