"""`bench data embed`: from the name of a data set to a file of its embeddings."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.commands.options import CACHE_DIR, DATA_DIR, chosen_folders
from bench.errors import BenchError
from bench.runs.request import ONE_OF
from bench.system import registry

if TYPE_CHECKING:
    from bench.images.dataset import Dataset


@click.command("embed", short_help="Write a file of the embeddings of a data set.")
@click.argument("name", metavar="DATASET|folder:PATH")
@click.option("--backbone", default="mini", show_default=True, help="mini, or an open_clip architecture.")
@click.option("--pretrained", metavar="TAG|FILE|FOLDER", help="Its weights: open_clip tag, file, folder, or none.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--precision", default="auto", show_default=True, type=click.Choice(ONE_OF["precision"]),
    help="Of the towers' blocks; auto: float32 on the CPU, half on a GPU.",
)  # fmt: skip
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The file to write, FILE.safetensors.")
@DATA_DIR
@CACHE_DIR
def embed_command(
    name: str,
    backbone: str,
    pretrained: str | None,
    device: str,
    precision: str,
    out: Path,
    data_dir: Path | None,
    cache_dir: Path | None,
) -> None:
    """Write the embeddings of all images and prompts of a data set to a file: --protocol embeddings:FILE-TxC runs on it."""
    if out.is_dir():
        raise BenchError(f"-o {out}: a folder; name a file, for instance {out / 'embeddings.safetensors'}")
    dataset = _dataset(name)
    click.echo(embedded(dataset, backbone, pretrained, device, precision, out, data_dir, cache_dir))


def embedded(
    dataset: "Dataset",
    backbone: str,
    pretrained: str | None,
    device: str,
    precision: str,
    out: Path,
    data_dir: Path | None,
    cache_dir: Path | None,
) -> str:
    """Write the file; what it holds, and how it is used, in a few lines."""
    from bench.checks.embeddings import described
    from bench.clip import backbone as backbones
    from bench.clip import loading
    from bench.runs.run import weights_label
    from bench.streams.embed import embed

    device = backbones.resolve_device(device)
    identity = loading.identity(backbone, pretrained)
    clip = backbones.load(backbone, pretrained, device, precision)
    label = weights_label(backbone, pretrained, identity)
    for note in dataset.notes:
        click.echo(f"note: {note}", err=True)
    folders = chosen_folders(data_dir, cache_dir)
    file = embed(dataset, clip, label, folders, out, lambda what: click.echo(f"{dataset.info.name}: {what}", err=True))
    return "\n".join(described(file))


def _dataset(name: str) -> "Dataset":
    """A registered data set, or one that a rule makes from its name."""
    if name in registry.names("dataset"):
        return registry.load("dataset", name)
    families, _ = registry.load_all("dataset-family")
    for family in families.values():
        found = family(name)
        if found is not None:
            return found
    return registry.load("dataset", name)  # raises
