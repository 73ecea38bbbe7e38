"""`bench learn`: from a kept model and a folder of images to a model that has learned one more task."""

from pathlib import Path

import click

from bench.commands.options import CACHE_DIR, DATA_DIR, METHOD_OF_MODEL, chosen_folders


@click.command("learn", short_help="Continue a trained model with one more task.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--task", "folder", required=True, metavar="FOLDER", type=click.Path(path_type=Path),
    help="The task's images, a sub-folder for each of its classes, as folder: streams have them.",
)
@click.option("-o", "--out", "new", required=True, type=click.Path(path_type=Path), help="Folder for the new model.")
@click.option("--device", help="cpu, cuda or cuda:N.  [as the run]")
@METHOD_OF_MODEL
@DATA_DIR
@CACHE_DIR
def learn_command(
    run: Path, folder: Path, new: Path, device: str | None, method: str | None, data_dir: Path | None, cache_dir: Path | None
) -> None:
    """Continue the trained model of RUN with one more task, and keep the new model in a folder of its own."""
    from bench.runs import learning_on

    click.echo(learning_on.learn(run, folder, new, device, chosen_folders(data_dir, cache_dir), method).in_words())
