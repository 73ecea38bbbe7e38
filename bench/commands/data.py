"""`bench data list | get | check`: which data sets are there, how to have the others, and whether they are whole."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tabulate import tabulate

from bench.errors import BenchError
from bench.images import complaints as dataset_checks
from bench.images import layouts
from bench.images.dataset import Dataset, DatasetInfo, Folders, ImageSource
from bench.system import registry


def listing(data: Path) -> str:
    """A table of all data sets: size, whether it is there, how it can be had, where it lies or is looked for."""
    found, broken = registry.load_all("dataset")
    rows = []
    for name, dataset in found.items():
        images = [dataset.info.train_images or "-", dataset.info.test_images or "-"]
        rows.append([name, len(dataset.info.class_names), *images, *_state(dataset, data)])
    table = tabulate(rows, ["data set", "classes", "train", "test", "state", "from", "folder"], tablefmt="simple")
    return "\n".join([f"data sets in {data}:", table, *broken])


def _state(dataset: Dataset, data: Path) -> tuple[str, str, str]:
    """(state, how it can be had, folder)"""
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
    dataset: Dataset = registry.load("dataset", name)
    if not dataset.layouts:
        return f"{name}: nothing to get, its images are made when they are first used"
    layout = layouts.find(dataset.layouts, data)
    if layout:
        return f"{name}: already in {data / layout.folder}"
    layout = layouts.get(dataset.info, dataset.layouts, data)
    return f"{name}: now in {data / layout.folder}"


@dataclass
class Finding:
    """What a check found: lines to print, and how many of them say that something is wrong."""

    lines: list[str] = field(default_factory=list)
    wrong: int = 0

    def complain(self, line: str) -> None:
        self.lines.append(f"WRONG  {line}")
        self.wrong += 1


def check(name: str, folders: Folders, decode: bool = True) -> Finding:
    """Compare a data set that is there with the official one: digests of files, numbers of images, classes, whole images.

    Nothing is downloaded: BenchError if it is not there. decode False: images are not opened, only counted.
    """
    dataset: Dataset = registry.load("dataset", name)
    finding = Finding()
    layout = dataset_checks.layout_of(dataset, folders.data)
    if layout:
        finding.lines.append(f"{name} in {folders.data / layout.folder}")
        for complaint in dataset_checks.unofficial_files(layout, folders.data):
            finding.complain(complaint)
    else:
        finding.lines.append(f"{name}: made by this package")
    for split in dataset_checks.SPLITS:
        try:
            _compare_split(dataset.info, split, dataset_checks.open_split(dataset, layout, split, folders), decode, finding)
        except BenchError as error:
            finding.complain(f"{split}: {error}")
    finding.lines.append(f"{name}: as it should be" if not finding.wrong else f"{name}: not as it should be, see the lines above")
    return finding


def _compare_split(info: DatasetInfo, split: str, source: ImageSource, decode: bool, finding: Finding) -> None:
    def complain(complaints: Iterable[str]) -> int:
        before = finding.wrong
        for complaint in complaints:
            finding.complain(f"{split}: {complaint}")
        return finding.wrong - before

    if complain(dataset_checks.wrong_labels(info, source)):
        return
    counts = np.bincount(source.labels, minlength=len(info.class_names))
    finding.lines.append(f"{split}: {len(source)} images, {counts.min()} to {counts.max()} of each of {len(counts)} classes")
    complain(dataset_checks.wrong_numbers(info, split, source))
    if decode and not complain(dataset_checks.damaged_images(source)):
        finding.lines.append(f"{split}: every image is whole, digest of all {source.digest[:16]}")
