"""The part of `bench doctor` that looks at the machine: are packages, devices, folders and data sets there, and do they work?"""

import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from pathlib import Path

from bench.checks.diagnosis import Diagnosis
from bench.errors import BenchError, one_line
from bench.images import layouts
from bench.images.dataset import Folders
from bench.system import registry
from bench.system.version import VERSION

LITTLE_SPACE = 2e9  # bytes


def examine(results: Path, folders: Folders, diagnosis: Diagnosis) -> None:
    """What is installed and what computes, then the folders, then the data sets in one of them."""
    _packages(diagnosis)
    _model(diagnosis)
    diagnosis.section("folders")
    _folder(diagnosis, "results", results, written=True)
    _folder(diagnosis, "cache", folders.cache, written=True)
    _folder(diagnosis, "data", folders.data, written=False)
    _data(diagnosis, folders.data)


def _packages(diagnosis: Diagnosis) -> None:
    """Everything this package requires is installed."""
    diagnosis.section("environment")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    diagnosis.fine(f"bench {VERSION}, Python {platform.python_version()}, {machine}")
    required = [one for one in importlib.metadata.requires(registry.BUILT_IN) or [] if "extra ==" not in one]
    missing = [one for one in required if not _installed(_package_of(one))]
    if missing:
        diagnosis.complain(f"not installed: {', '.join(missing)}; install the package again")
    else:
        diagnosis.fine(f"all {len(required)} required packages are installed")


def _package_of(requirement: str) -> str:
    """Its name, without the versions that are wanted.

    >>> _package_of("click>=8.1")
    'click'
    """
    found = re.match(r"[\w.-]+", requirement)
    assert found, f"a requirement begins with a name: {requirement!r}"
    return found[0]


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
        if right:
            diagnosis.fine(f"torch {torch.__version__} computes on {name}")
        else:
            diagnosis.complain(f"torch {torch.__version__} computes on {name}")
    if len(devices) == 1:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        diagnosis.note(f"no CUDA device is seen (torch is {built}): everything runs on the CPU")
    try:
        from bench.clip import backbone

        width = backbone.load("mini", None, "cpu").embedding_width
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
            diagnosis.complain(f"{name}: {folder} cannot be written ({one_line(error)})")
            return
    if written and free < LITTLE_SPACE:
        diagnosis.complain(f"{name}: {folder}: {state}, that is little; free some or choose another disk")
    else:
        diagnosis.fine(f"{name}: {folder} ({state})")


def _data(diagnosis: Diagnosis, data: Path) -> None:
    """Data sets that are there, and those of which a part is missing."""
    # plug-ins: not named, not loaded
    names = [entry.name for entry in registry.entries("dataset") if entry.package == registry.BUILT_IN]
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
