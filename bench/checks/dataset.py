"""What a data set must keep to, tried by `bench check`: what it says of itself, and the images that it gives.

Nothing is downloaded: a data set that is not there is a BenchError that says how to get it.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from bench.checks.promises import Result, all_tried, wrong_templates
from bench.images.complaints import (
    SPLITS,
    damaged_images,
    few,
    layout_of,
    open_split,
    require,
    unofficial_files,
    wrong_labels,
    wrong_numbers,
)
from bench.images.dataset import Dataset, Folders, ImageSource
from bench.images.layouts import Layout
from bench.system import registry

READ_TWICE = 64  # images of a split that are compared pixel by pixel with a second reading


@dataclass
class Trial:
    """A data set with everything it needs to be tried."""

    name: str
    dataset: Dataset
    folders: Folders
    layout: Layout | None  # in which its files lie; None where it has none
    opened: dict[str, ImageSource] = field(default_factory=dict)

    def open(self, split: str) -> ImageSource:
        """The split once more, as another run would open it."""
        return open_split(self.dataset, self.layout, split, self.folders)

    def split(self, split: str) -> ImageSource:
        if split not in self.opened:
            self.opened[split] = self.open(split)
        return self.opened[split]

    def in_splits(self, complaints: Callable[[str, ImageSource], Iterable[str]]) -> str:
        """The complaints about both splits, in one line."""
        return "; ".join(f"{split}: {complaint}" for split in SPLITS for complaint in complaints(split, self.split(split)))


def check(name: str, folders: Folders) -> list[Result]:
    """Try every promise on the data set of that name; BenchError if it is not there."""
    dataset: Dataset = registry.load("dataset", name)
    require(dataset, folders)
    trial = Trial(name, dataset, folders, layout_of(dataset, folders.data))
    return all_tried(PROMISES, trial, registry.target("dataset", name))


# -- the promises: each returns a complaint, or "" when kept ----------------------------------------------------


def describes_itself(trial: Trial) -> str:
    """says what it is: its name, version, summary and origin, prompt templates with one {}, how to get its files"""
    info = trial.dataset.info
    missing = [what for what in ("version", "summary", "origin", "templates") if not getattr(info, what)]
    layouts = trial.dataset.layouts
    if layouts and not any(layout.download for layout in layouts) and not layouts[0].by_hand:  # bench.images.layouts.how_to_get
        missing.append("how to get its files (download of a layout, or by_hand of the first)")
    complaints = [f"missing: {', '.join(missing)}"] if missing else []
    family, colon, _ = info.name.partition(":")  # one of a family was asked for by its path: folder:data/fruit is folder:fruit
    if info.name != trial.name and not (colon and trial.name.startswith(f"{family}:")):
        complaints.append(f"its entry point calls it {trial.name!r}, its info {info.name!r}")
    if wrong := wrong_templates(info.templates):
        complaints.append(f"not with one {{}}: {few([repr(template) for template in wrong])}")
    return "; ".join(complaints)


def names_its_classes(trial: Trial) -> str:
    """names every class, no two alike"""
    names = Counter(trial.dataset.info.class_names)
    unnamed = [label for label, name in enumerate(trial.dataset.info.class_names) if not name.strip()]
    twice = [repr(name) for name, count in names.items() if count > 1 and name.strip()]
    complaints = []
    if not names:
        complaints.append("it has no class")
    if unnamed:
        complaints.append(f"no name: class {few([str(label) for label in unnamed])}")
    if twice:
        complaints.append(f"the name of several classes: {few(twice)}")
    return "; ".join(complaints)


def files_are_official(trial: Trial) -> str:
    """its files are the official ones, where their digests are known"""
    return "; ".join(unofficial_files(trial.layout, trial.folders.data)) if trial.layout else ""


def labels_are_classes(trial: Trial) -> str:
    """labels every image with one of its classes"""
    return trial.in_splits(lambda split, source: wrong_labels(trial.dataset.info, source))


def images_are_all_there(trial: Trial) -> str:
    """has as many images as it announces, some of every class in both splits"""

    def wrong(split: str, source: ImageSource) -> Iterable[str]:
        out_of_range = list(wrong_labels(trial.dataset.info, source))
        return out_of_range or wrong_numbers(trial.dataset.info, split, source)

    return trial.in_splits(wrong)


def images_are_readable(trial: Trial) -> str:
    """gives every image: uint8 of (height, width, 3)"""
    return trial.in_splits(lambda split, source: damaged_images(source))


def images_stay_the_same(trial: Trial) -> str:
    """gives the same images under the same digest whenever it is opened, and has a digest for each split"""

    def differences(split: str, first: ImageSource) -> Iterable[str]:
        again = trial.open(split)
        if first.digest != again.digest:
            yield "opened twice, it has two digests"
        if len(first) != len(again) or not np.array_equal(first.labels, again.labels):
            yield "opened twice, it has other images or labels"
            return
        rows = np.unique(np.linspace(0, len(first) - 1, min(READ_TWICE, len(first)), dtype=np.int64))
        changed = [row for row, one, other in zip(rows, first.read(rows), again.read(rows)) if not np.array_equal(one, other)]
        if changed:
            yield f"opened twice, it has other pixels in image {few([str(row) for row in changed])}"

    same = len({trial.split(split).digest for split in SPLITS}) == 1
    mixed = "both splits have the same digest, so the features of one would be taken for the other's" if same else ""
    return "; ".join(filter(None, [trial.in_splits(differences), mixed]))


PROMISES: list[Callable[[Trial], str]] = [
    describes_itself,
    names_its_classes,
    files_are_official,
    labels_are_classes,
    images_are_all_there,
    images_are_readable,
    images_stay_the_same,
]
