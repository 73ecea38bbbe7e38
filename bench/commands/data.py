"""`bench data list | get | check | embed`: which data sets are there, how to have the others, whether they are whole."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from tabulate import tabulate

from bench.commands.completion import one_of
from bench.commands.embed import embed_command
from bench.commands.options import CACHE_DIR, DATA_DIR, chosen_folders
from bench.system import registry

if TYPE_CHECKING:
    from bench.images.dataset import Dataset


@click.group("data", short_help="See which data sets are there, get them, check them.")
def data_command() -> None:
    """Data sets on disk: what is there, how to get the others, whether they are whole."""


@data_command.command("list", short_help="List all data sets and where they are looked for.")
@DATA_DIR
def list_command(data_dir: Path | None) -> None:
    """List all data sets: what is there, and where the others are looked for."""
    click.echo(listing(chosen_folders(data_dir, None).data))


@data_command.command("get", short_help="Download data sets, or say how to get them by hand.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=one_of("dataset"))
@DATA_DIR
def get_command(names: tuple[str, ...], data_dir: Path | None) -> None:
    """Download data sets, or say what to download by hand and where to put it."""
    for name in names:
        click.echo(get(name, chosen_folders(data_dir, None).data))


@data_command.command("check", short_help="Compare data sets with the official ones.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=one_of("dataset"))
@click.option("--quick", is_flag=True, help="Count the images without opening them.")
@DATA_DIR
@CACHE_DIR
def check_command(names: tuple[str, ...], quick: bool, data_dir: Path | None, cache_dir: Path | None) -> None:
    """Compare data sets with the official ones: files, numbers of images, classes, whole images; exit 1 if they differ. NAME may
    be a file of embeddings, FILE.safetensors."""
    from bench.checks import embeddings, official

    folders = chosen_folders(data_dir, cache_dir)
    findings = [
        embeddings.check(name) if embeddings.is_meant(name) else official.check(name, folders, not quick) for name in names
    ]
    click.echo("\n".join(line for finding in findings for line in finding.lines))
    if any(finding.wrong for finding in findings):
        raise SystemExit(1)


data_command.add_command(embed_command)


def listing(data: Path) -> str:
    """A table of all data sets: size, whether it is there, how it can be had, where it lies or is looked for."""
    found, broken = registry.load_all("dataset")
    rows = []
    for name, dataset in found.items():
        images = [dataset.info.train_images or "-", dataset.info.test_images or "-"]
        rows.append([name, len(dataset.info.class_names), *images, *_state(dataset, data)])
    table = tabulate(rows, ["data set", "classes", "train", "test", "state", "from", "folder"], tablefmt="simple")
    return "\n".join([f"data sets in {data}:", table, *broken])


def _state(dataset: "Dataset", data: Path) -> tuple[str, str, str]:
    """(state, how it can be had, folder)"""
    from bench.images import layouts

    if not dataset.layouts:
        return "there", "made here", "(cache)"
    layout = layouts.find(dataset.layouts, data)
    how = "download" if any(layout.download for layout in dataset.layouts) else "by hand"
    if layout:
        return "there", how, layout.folder
    begun = next((layout for layout in dataset.layouts if len(layout.missing(data)) < len(layout.needs)), None)
    return ("incomplete" if begun else "-"), how, (begun or dataset.layouts[0]).folder


def get(name: str, data: Path) -> str:
    """Download a data set if it is not there; a sentence that says where it is. BenchError says what to do by hand."""
    from bench.images import layouts

    dataset: Dataset = registry.load("dataset", name)
    if not dataset.layouts:
        return f"{name}: nothing to get, its images are made when they are first used"
    layout = layouts.find(dataset.layouts, data)
    if layout:
        return f"{name}: already in {data / layout.folder}"
    layout = layouts.get(dataset.info, dataset.layouts, data)
    return f"{name}: now in {data / layout.folder}"
