"""`bench data check`: is a data set that lies on disk the official one, and is every image whole?"""

from collections.abc import Iterable

import numpy as np

from bench.checks.diagnosis import Finding
from bench.errors import BenchError
from bench.images import complaints
from bench.images.dataset import Dataset, DatasetInfo, Folders, ImageSource
from bench.system import registry


def check(name: str, folders: Folders, decode: bool = True) -> Finding:
    """Compare a data set that is there with the official one: digests of files, numbers of images, classes, whole images.

    Nothing is downloaded: BenchError if it is not there. decode False: images are not opened, only counted.
    """
    dataset: Dataset = registry.load("dataset", name)
    finding = Finding()
    layout = complaints.layout_of(dataset, folders.data)
    if layout:
        finding.lines.append(f"{name} in {folders.data / layout.folder}")
        for complaint in complaints.unofficial_files(layout, folders.data):
            finding.complain(complaint)
    else:
        finding.lines.append(f"{name}: made by this package")
    for split in complaints.SPLITS:
        try:
            _compare_split(dataset.info, split, complaints.open_split(dataset, layout, split, folders), decode, finding)
        except BenchError as error:
            finding.complain(f"{split}: {error}")
    finding.lines.append(f"{name}: as it should be" if not finding.wrong else f"{name}: not as it should be, see the lines above")
    return finding


def _compare_split(info: DatasetInfo, split: str, source: ImageSource, decode: bool, finding: Finding) -> None:
    if _complain(finding, split, complaints.wrong_labels(info, source)):
        return
    counts = np.bincount(source.labels, minlength=len(info.class_names))
    finding.lines.append(f"{split}: {len(source)} images, {counts.min()} to {counts.max()} of each of {len(counts)} classes")
    _complain(finding, split, complaints.wrong_numbers(info, split, source))
    if decode and not _complain(finding, split, complaints.damaged_images(source)):
        finding.lines.append(f"{split}: every image is whole, digest of all {source.digest[:16]}")


def _complain(finding: Finding, split: str, found: Iterable[str]) -> bool:
    """Put them down, each with the split that it is about; were there any?"""
    before = finding.wrong
    for complaint in found:
        finding.complain(f"{split}: {complaint}")
    return finding.wrong > before
