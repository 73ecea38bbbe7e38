"""`bench predict`: from a kept model and images, or embeddings of some, to the best classes of each, as text, CSV or JSON."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.commands.options import CACHE_DIR, DATA_DIR, METHOD_OF_MODEL, chosen_folders
from bench.errors import BenchError, printable

if TYPE_CHECKING:
    import torch

    from bench.images.dataset import Folders
    from bench.runs.trained_model import TrainedModel

FORMATS = ("plain", "csv", "json")
COLUMNS = ("image", "rank", "class", "probability", "score", "learned")


@dataclass(frozen=True)
class Answer:
    """One of the best classes of an image."""

    image: str
    rank: int  # 1 is the best
    name: str
    probability: float  # softmax over the classes that compete
    score: float  # the method's own
    learned: bool  # from images; else the class is known by its name alone

    @property
    def cells(self) -> tuple[str | int | float | bool, ...]:
        return self.image, self.rank, self.name, self.probability, self.score, self.learned


@click.command("predict", short_help="Classify images with a trained model.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE|FOLDER|EMBEDDINGS...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--classes", default="seen", show_default=True, metavar="seen|all|NAME,NAME,...",
    help="Which classes compete: those that were learned, all of the stream, or these names, known or not.",
)
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="The best so many classes of each image.")
@click.option("--format", "form", default="plain", show_default=True, type=click.Choice(FORMATS))
@click.option("--device", help="cpu, cuda or cuda:N.  [as the run]")
@METHOD_OF_MODEL
@DATA_DIR
@CACHE_DIR
def predict_command(
    run: Path, images: tuple[Path, ...], classes: str, top: int, form: str, device: str | None, method: str | None,
    data_dir: Path | None, cache_dir: Path | None,
) -> None:  # fmt: skip
    """Classify images with the trained model of RUN, the folder of a run that was made with --keep-model.

    Where that run was on embeddings, EMBEDDINGS are FILE.npy, an array (n, width), or a FILE.safetensors as such runs have, whose
    test images are classified.
    """
    click.echo(predicted(run, images, classes, top, form, device, chosen_folders(data_dir, cache_dir), method))


def predicted(
    run: Path, images: Sequence[Path], classes: str, top: int, form: str, device: str | None, folders: "Folders",
    method: str | None = None,
) -> str:  # fmt: skip
    """What the command prints. All images are scored together, in their order."""
    from bench.images import embedding_arrays

    vectors = [given for given in images if embedding_arrays.is_meant(given)]
    paths = [path for given in images if given not in vectors for path in image_files(given)]
    competing = names_of(classes)

    from bench.runs import trained_model

    model = trained_model.load(run, device, folders, method)
    if vectors and not model.reads_embeddings:
        raise BenchError(f"{vectors[0]}: embeddings are for models that were trained on such; this one classifies images")
    if vectors and paths:
        raise BenchError(f"{paths[0]}: an image among embeddings; the model was trained on embeddings and cannot encode images")
    answers = list(_answers_on_embeddings(model, vectors, competing, top) if vectors else _answers(model, paths, competing, top))
    return {"plain": _plain, "csv": _csv, "json": _json}[form](answers)


def image_files(given: Path) -> list[str]:
    """A file, or the image files of a folder and its sub-folders; BenchError if there is none."""
    from bench.images.listing import images_below

    if given.is_file():
        return [str(given)]
    if not given.is_dir():
        raise BenchError(f"{given}: no such file or folder")
    found = [str(given / name) for name in images_below(given)]
    if not found:
        raise BenchError(f"{given}: no image in this folder")
    return found


def names_of(classes: str) -> str | list[str]:
    """ "seen" or "all", or the names that the text lists; one with a comma stands in quotes.

    >>> names_of("all"), names_of('cat, "dog, asleep"')
    ('all', ['cat', 'dog, asleep'])
    """
    if classes in ("seen", "all"):
        return classes
    try:
        row = next(csv.reader([classes], skipinitialspace=True), [])
    except csv.Error as error:  # a line break, a text without end
        raise BenchError("--classes: names without line breaks are wanted, separated by commas") from error
    names = [name.strip() for name in row]
    if not names or not all(names):
        raise BenchError("--classes: seen, all, or names separated by commas are wanted")
    if any(printable(name) != name for name in names):
        raise BenchError("--classes: names without control characters are wanted")
    return list(dict.fromkeys(names))


def _answers_on_embeddings(
    model: "TrainedModel", files: Sequence[Path], classes: str | list[str], top: int
) -> Iterator[Answer]:
    """Every row of every file, called FILE:ROW."""
    for file in files:
        scores = model.scores(file, classes)
        yield from _ranked(model, [f"{file}:{row}" for row in range(len(scores))], scores, classes, top)


def _answers(model: "TrainedModel", paths: list[str], classes: str | list[str], top: int) -> Iterator[Answer]:
    yield from _ranked(model, paths, model.scores(paths, classes), classes, top)


def _ranked(
    model: "TrainedModel", paths: list[str], scores: "torch.Tensor", classes: str | list[str], top: int
) -> Iterator[Answer]:
    names, probabilities = model.chosen(classes), scores.softmax(dim=-1)
    learned = set(model.seen_names)
    for path, columns, own, shares in zip(paths, model.best(scores, classes, top), scores.tolist(), probabilities.tolist()):
        for rank, column in enumerate(columns, start=1):
            yield Answer(path, rank, names[column], shares[column], own[column], names[column] in learned)


def _plain(answers: Sequence[Answer]) -> str:
    return "\n".join(
        f"{printable(image)}: " + ", ".join(f"{one.name} {100 * one.probability:.1f}" for one in classes)
        for image, classes in _by_image(answers)
    )


def _csv(answers: Sequence[Answer]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(one.cells for one in answers)
    return text.getvalue().rstrip("\n")


def _json(answers: Sequence[Answer]) -> str:
    found = [
        {"image": image, "classes": [dict(zip(COLUMNS[1:], one.cells[1:])) for one in classes]}
        for image, classes in _by_image(answers)
    ]
    return json.dumps(found, indent=1, ensure_ascii=False)


def _by_image(answers: Sequence[Answer]) -> Iterator[tuple[str, list[Answer]]]:
    """Every image with its best classes; one that was named twice comes twice."""
    starts = [k for k, one in enumerate(answers) if one.rank == 1]
    for start, end in zip(starts, [*starts[1:], len(answers)]):
        yield answers[start].image, list(answers[start:end])
