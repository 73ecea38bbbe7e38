"""`bench profile`: from options, most of them those of `bench run`, to runs, to their profiles, to text."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.commands.options import CACHE_DIR, DATA_DIR, chosen_folders, with_options
from bench.commands.run import OPTIONS, refuse_unknown, request_of
from bench.system import registry

if TYPE_CHECKING:
    from bench.images.dataset import Folders

AS_IN_RUN = (
    "protocols", "methods", "seeds", "order_seeds", "backbone", "pretrained", "device", "precision", "accelerate", "set",
    "ablate", "data", "limit_train", "limit_test", "threads",
)  # fmt: skip
OWN = [
    click.option("--stored-features", is_flag=True, help="Use the feature store of the cache folder.  [an empty one]"),
    click.option("--flops/--no-flops", default=True, help="Carry out every run a second time to count its operations.  [on]"),
    click.option("--format", "format_", default="text", show_default=True, type=click.Choice(["text", "json"])),
]


@click.command("profile", short_help="Measure where the time of runs goes, phase by phase.")
@with_options([*(OPTIONS[name] for name in AS_IN_RUN), *OWN])
@DATA_DIR
@CACHE_DIR
def profile_command(data_dir: Path | None, cache_dir: Path | None, **given: Any) -> None:
    """Measure where the time of runs goes, phase by phase, and how far it is from what the device could do. Results are
    thrown away. The first method encodes the images, the others find them in the feature store."""
    click.echo(run(given, chosen_folders(data_dir, cache_dir)))


def run(given: dict[str, Any], folders: "Folders") -> str:
    """Carry out the command and return what it prints; `given` holds the options by name."""
    asked = request_of(given)
    refuse_unknown(asked.protocols, asked.methods)
    registry.refuse_one_name_twice(asked.methods)

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
