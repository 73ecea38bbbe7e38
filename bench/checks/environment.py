"""`bench doctor`: is everything that runs rely on as it should be, and are their results whole?

What is wrong is mended on request where that loses nothing that a repeated command would not make again.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import one_line
from bench.images.dataset import Folders
from bench.system.version import VERSION

LITTLE_SPACE = 2e9  # bytes


@dataclass
class Diagnosis:
    """What was found, line by line; `repair` mends what can be mended without loss."""

    repair: bool = False
    lines: list[str] = field(default_factory=list)
    wrong: int = 0  # and still so
    mended: int = 0
    mendable: int = 0

    def section(self, title: str) -> None:
        self.lines.append(title)

    def fine(self, text: str) -> None:
        self.lines.append(f"  ok      {text}")

    def note(self, text: str) -> None:
        self.lines.append(f"  note    {text}")

    def complain(self, text: str) -> None:
        self.lines.append(f"  WRONG   {text}")
        self.wrong += 1

    def mend(self, text: str, remedy: str, action: Callable[[], object]) -> None:
        """Something wrong that `action` puts right; the remedy says what that does ("removed", ...)."""
        if self.repair:
            action()
            self.lines.append(f"  mended  {text}: {remedy}")
            self.mended += 1
        else:
            self.complain(f"{text} (--repair: {remedy})")
            self.mendable += 1

    @property
    def verdict(self) -> str:
        parts = [f"{self.wrong} wrong" if self.wrong else "nothing is wrong"]
        parts += [f"{self.mended} mended"] * bool(self.mended)
        parts += [f"--repair mends {self.mendable}"] * bool(self.mendable)
        return ", ".join(parts)


def examine(results: Path, folders: Folders, repair: bool = False) -> Diagnosis:
    """Environment, results and their images, feature store, in this order."""
    from bench.checks import features, images
    from bench.checks import results as doctor_results

    diagnosis = Diagnosis(repair)
    _packages(diagnosis)
    _model(diagnosis)
    diagnosis.section("folders")
    for name, folder, written in (("results", results, True), ("cache", folders.cache, True), ("data", folders.data, False)):
        _folder(diagnosis, name, folder, written)
    _data(diagnosis, folders.data)
    doctor_results.examine(results, diagnosis)
    images.examine(results, folders, diagnosis)
    features.examine(folders.features, diagnosis)
    return diagnosis


def _packages(diagnosis: Diagnosis) -> None:
    """Everything this package requires is installed."""
    diagnosis.section("environment")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    diagnosis.fine(f"bench {VERSION}, Python {platform.python_version()}, {machine}")
    from bench.system.registry import BUILT_IN

    required = [one for one in importlib.metadata.requires(BUILT_IN) or [] if "extra ==" not in one]
    missing = [one for one in required if not _installed(re.match(r"[\w.-]+", one)[0])]
    if missing:
        diagnosis.complain(f"not installed: {', '.join(missing)}; install the package again")
    else:
        diagnosis.fine(f"all {len(required)} required packages are installed")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _model(diagnosis: Diagnosis) -> None:
    """torch computes on every device it sees, and open_clip builds a CLIP from the weights that ship with the package."""
    try:
        import torch

        devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    except Exception as error:  # a broken installation raises anything
        diagnosis.complain(f"torch cannot be imported: {type(error).__name__}: {one_line(error)}; install it again")
        return
    for device in devices:
        try:
            right = float((torch.ones(8, 8, device=device) @ torch.ones(8, 8, device=device)).sum()) == 512
        except RuntimeError as error:
            diagnosis.complain(f"torch {torch.__version__} cannot compute on {device}: {one_line(error)}")
            continue
        name = device if device == "cpu" else f"{device}, {torch.cuda.get_device_name(device)}"
        (diagnosis.fine if right else diagnosis.complain)(f"torch {torch.__version__} computes on {name}")
    if len(devices) == 1:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        diagnosis.note(f"no CUDA device is seen (torch is {built}): everything runs on the CPU")
    try:
        from bench.clip import backbone as backbones

        width = backbones.load("mini", None, "cpu").embedding_width
        diagnosis.fine(f"open_clip {_installed('open_clip_torch')} builds the mini CLIP (width {width})")
    except Exception as error:
        diagnosis.complain(
            f"the mini CLIP cannot be built with open_clip {_installed('open_clip_torch')}: "
            f"{type(error).__name__}: {one_line(error)}"
        )


def _folder(diagnosis: Diagnosis, name: str, folder: Path, written: bool) -> None:
    """There is space, and what has to be written can be."""
    there = next((place for place in (folder.absolute(), *folder.absolute().parents) if place.exists()), None)
    if there is None or not there.is_dir():
        diagnosis.complain(f"{name}: {folder} cannot be a folder, {there} is a file")
        return
    free = shutil.disk_usage(there).free
    state = f"{free / 1e9:.1f} GB free" if there == folder.absolute() else f"not there yet, {free / 1e9:.1f} GB free"
    if written and folder.exists():
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            diagnosis.complain(f"{name}: {folder} cannot be written ({error.strerror})")
            return
    if written and free < LITTLE_SPACE:
        diagnosis.complain(f"{name}: {folder}: {state}, that is little; free some or choose another disk")
    else:
        diagnosis.fine(f"{name}: {folder} ({state})")


def _data(diagnosis: Diagnosis, data: Path) -> None:
    """Data sets that are there, and those of which a part is missing."""
    from bench.errors import BenchError
    from bench.images import layouts
    from bench.system import registry

    names = [
        entry.name for entry in registry.entries("dataset") if entry.package == registry.BUILT_IN
    ]  # plug-ins: not named, not loaded
    there = 0
    for name in names:
        try:
            dataset = registry.load("dataset", name)
        except BenchError as error:
            diagnosis.complain(str(error))
            continue
        if not dataset.layouts or layouts.find(dataset.layouts, data):
            there += 1
        elif any(len(layout.missing(data)) < len(layout.needs) for layout in dataset.layouts):
            diagnosis.note(f"data set {name} is incomplete: bench data get {name} says what is missing")
    diagnosis.fine(f"{there} of {len(names)} data sets are there (bench data list; bench data check reads their images)")
