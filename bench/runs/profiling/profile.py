"""`bench profile`: where the time of a run goes, and how far that is from what the device could do.

Every run is carried out twice, as `bench run` would and with results that are thrown away: once against the clock, and once
under a counter of floating-point operations, which is too slow to be timed. Both start with the same feature store: an empty one
by default, so that the first method encodes the images and the others find them.

The floor of a run is the time that its operations (the encoding pass that fell to it, and the method's own) would take at the
rate of a large matrix product on the same device, measured in the same process.
"""

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.results import records
from bench.results.run_folder import RunFolder
from bench.runs import launch, runner
from bench.runs.profiling.operations import OperationCounter, clock, matrix_rate
from bench.runs.run import Run
from bench.system.peak_memory import forget_peak, peak_bytes
from bench.system.phases import PHASES, phase, recorded
from bench.system.processor import cpu_model
from bench.system.progress import followed


@dataclass(frozen=True)
class Machine:
    """What the numbers were measured on."""

    device: str
    precision: str  # of the towers, and of the matrix product that they are compared with
    rate: float  # floating-point operations a second of that product
    threads: int
    versions: dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """One run, phase by phase."""

    run: Run
    seconds: dict[str, float]
    passes: dict[str, float]  # images through an image tower
    operations: dict[str, float]  # floating-point operations; empty if they were not counted
    images: int  # training images of all tasks, and test images as often as they were scored
    memory: int | None  # bytes, at the highest; None: the system does not say
    memory_is_own: bool  # False: the highest since the process began

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def encoding_rate(self) -> float | None:
        """Images a second of the frozen encoder, decoding not counted; None if it had nothing to do."""
        return self.passes["encode"] / self.seconds["encode"] if self.passes["encode"] else None

    def floor(self, rate: float) -> dict[str, float]:
        """Seconds of an encoding pass and of the method's own arithmetic at that rate; empty if nothing was counted."""
        if not self.operations:
            return {}
        encoding = self.operations["encode"]
        return {"encoding": encoding / rate, "own": (sum(self.operations.values()) - encoding) / rate}


def profile(
    runs: Sequence[Run], folders: Folders, threads: int | None, count: bool = True, stored_features: bool = False
) -> tuple[Machine, list[Profile], list[str]]:
    """The machine, the profile of every run, and a sentence for each run that failed. BenchError if all did.

    count: also count operations. stored_features: use the feature store of the cache folder instead of an empty one.
    """
    device = torch.device(runs[0].device)
    with tempfile.TemporaryDirectory(prefix="bench-profile-") as temporary, launch.limited_threads(threads):
        rate = matrix_rate(device, getattr(torch, runs[0].precision))
        timed, failures = {}, []
        for run in followed(_placed(runs, Path(temporary) / "timed"), "timing runs", len(runs)):
            try:
                timed[run.run_id] = _timed(run, device, _with_features(folders, Path(temporary) / "timed", stored_features))
            except BenchError as error:
                failures.append(f"{run.label}: {error}")
        if not timed:
            raise BenchError(failures[0])
        profiles = []
        for run in followed(_placed(runs, Path(temporary) / "counted"), "counting operations of runs", len(runs)):
            if run.run_id in timed:
                features = _with_features(folders, Path(temporary) / "counted", stored_features)
                profiles.append(dataclasses.replace(timed[run.run_id], operations=counted(run, features) if count else {}))
        versions = runner.environment(device)
        return Machine(_name(device), runs[0].precision, rate, torch.get_num_threads(), versions), profiles, failures


def _placed(runs: Sequence[Run], folder: Path) -> list[Run]:
    return [dataclasses.replace(run, out=folder / "results") for run in runs]


def _with_features(folders: Folders, folder: Path, stored: bool) -> Folders:
    return folders if stored else dataclasses.replace(folders, features_apart=folder / "features")


def _timed(run: Run, device: torch.device, folders: Folders) -> Profile:
    own = forget_peak(device)
    with recorded(lambda: clock(device)) as seconds:
        with phase("load"):
            backbone = run.loaded().backbone()
        with recorded(lambda: backbone.image_passes) as passes:
            _carry_out(run, folders)
    return Profile(run, seconds.spent, passes.spent, {}, _images(run.files), peak_bytes(device), own)


def counted(run: Run, folders: Folders) -> dict[str, float]:
    """Floating-point operations of a run, phase by phase: of the plain path, since a replayed graph shows none of its own."""
    run = dataclasses.replace(run, accelerate="none")
    with OperationCounter() as counter, recorded(lambda: counter.total) as operations:
        _carry_out(run, folders)
    return operations.spent


def _carry_out(run: Run, folders: Folders) -> None:
    outcome = launch.carry_out(run, folders)
    if outcome.status != "finished":
        raise BenchError(outcome.reason)


def _images(files: RunFolder) -> int:
    """Training images of all tasks, and test images once for every time that they were scored."""
    trained = sum(task["train_images"] for task in records.read_manifest(files.path)["tasks"])
    scored = records.read_csv(files.records).drop_duplicates(["after_task", "eval_task"])
    return trained + int(scored["n"].astype(int).sum())


# -- showing ----------------------------------------------------------------------------------------------------


def as_text(machine: Machine, profiles: Sequence[Profile], failures: Sequence[str] = ()) -> str:
    """Two tables, a row for every run: where the time goes, and what it is to be compared with."""
    head = f"{machine.device}, {machine.threads} CPU threads, torch {machine.versions['torch']}, towers in {machine.precision}"
    rate = f"a large matrix product in {machine.precision}: {machine.rate / 1e9:.1f} GFLOP/s"
    names = _names(profiles)
    phases = [
        [name, f"{found.total:.2f}", *(_with_share(found.seconds[phase], found.total) for phase in PHASES)]
        for name, found in zip(names, profiles)
    ]
    costs = [[name, *_costs(found, machine.rate)] for name, found in zip(names, profiles)]
    notes = [f"{name}: {what}" for name, what in PHASES.items()]
    notes += [
        "images/s: training images and scored test images, of the whole run; encoding: the frozen encoder alone",
        "floor: the time that the counted operations would take at the rate of the matrix product",
    ]
    if not all(found.memory_is_own for found in profiles):
        notes.append("peak memory: since the process began, which may have held other runs before")
    return "\n".join(
        [
            *(head, rate, "", "seconds, and share of the run", ""),
            tabulate(phases, ["run", "total", *PHASES], "simple", colalign=["left", *["right"] * (len(PHASES) + 1)]),
            "",
            tabulate(costs, ["run", *COSTS], "simple", colalign=["left", *["right"] * len(COSTS)], disable_numparse=True),
            *("", *notes, *failures),
        ]
    )


def as_json(machine: Machine, profiles: Sequence[Profile], failures: Sequence[str] = ()) -> str:
    """Everything that is known, in seconds, bytes and floating-point operations."""
    listed = []
    for found in profiles:
        floor = found.floor(machine.rate)
        listed.append(
            {
                **{key: found.run.identity[key] for key in ("protocol", "method", "settings", "backbone", "limits", "seed")},
                "overrides": found.run.overrides,
                "accelerate": found.run.accelerate,
                "total_seconds": found.total,
                "seconds": found.seconds,
                "share": {phase: seconds / found.total for phase, seconds in found.seconds.items()},
                "images": found.images,
                "images_per_second": found.images / found.total,
                "image_tower_passes": found.passes,
                "encoded_images_per_second": found.encoding_rate,
                "operations": found.operations or None,
                "utilisation": _utilisation(found, machine.rate),
                "floor_seconds": floor or None,
                "total_over_floor": found.total / sum(floor.values()) if sum(floor.values()) else None,
                "peak_memory_bytes": found.memory,
                "peak_memory_is_of_this_run": found.memory_is_own,
            }
        )
    whole = {"machine": dataclasses.asdict(machine), "phases": PHASES, "runs": listed, "failures": list(failures)}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)


COSTS = ["images/s", "encoding", "GFLOP", "utilisation", "floor (s)", "of it encoding", "total / floor", "peak memory (MB)"]


def _costs(found: Profile, rate: float) -> list[str]:
    """The cells under COSTS."""
    floor, share = found.floor(rate), _utilisation(found, rate)
    whole = sum(floor.values())
    return [
        f"{found.images / found.total:.0f}",
        f"{found.encoding_rate:.0f}" if found.encoding_rate else "-",
        f"{sum(found.operations.values()) / 1e9:.1f}" if floor else "-",
        "-" if share is None else f"{100 * share:.1f} %",
        f"{whole:.3f}" if floor else "-",
        f"{floor['encoding']:.3f}" if floor else "-",
        f"{found.total / whole:.1f}" if whole else "-",
        "-" if found.memory is None else f"{found.memory / 1e6:.0f}",
    ]


def _utilisation(found: Profile, rate: float) -> float | None:
    """Share of what the device could have computed in the time of the run."""
    return sum(found.operations.values()) / (rate * found.total) if found.operations else None


def _with_share(seconds: float, total: float) -> str:
    return f"{seconds:.2f} ({100 * seconds / total:.0f} %)" if seconds else "-"


def _names(profiles: Sequence[Profile]) -> list[str]:
    """What tells the runs apart: the method, with the protocol where there are several, and what was changed."""
    protocols = {found.run.protocol for found in profiles}
    return [
        " ".join([*([found.run.protocol] if len(protocols) > 1 else []), found.run.method, found.run.overrides]).strip()
        + ("" if found.run.accelerate == "none" else f" by {found.run.accelerate}")
        for found in profiles
    ]


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_model()
