"""What lies in the folder of a campaign: one file for each step that was carried out, in a folder for each device.

A file is written under another name and renamed, and is whole or no JSON at all: one that was cut off while it was copied from
another machine counts as not there.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from bench.system.files import write_atomically

Status = Literal["done", "not applicable", "failed"]
STEPS = "steps"  # the folder of their files, beside the tables


@dataclass(frozen=True)
class Machine:
    """What every row says of where it was measured; nothing that names a machine or a commit."""

    device: str
    torch: str
    size: str  # of the work: small or full

    @property
    def folder(self) -> str:
        """
        >>> Machine("NVIDIA H100 80GB HBM3", "2.15.0", "full").folder
        'nvidia-h100-80gb-hbm3-full'
        """
        return "-".join(re.findall(r"[a-z0-9]+", f"{self.device} {self.size}".lower()))


@dataclass(frozen=True)
class Result:
    """How a step ended."""

    step: str
    group: str
    machine: Machine
    status: Status
    seconds: float
    attempts: int = 1
    reason: str = ""  # one line, unless it is done
    table: str = ""  # to which its rows belong
    rows: list[dict[str, str]] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """A step that has failed is tried again."""
        return self.status != "failed"


def write(folder: Path, result: Result) -> None:
    write_atomically(_place(folder, result.step), json.dumps(asdict(result), indent=1) + "\n")


def read(folder: Path) -> dict[str, Result]:
    """The results of a device's folder that are whole, by the names of their steps."""
    return {result.step: result for result in map(_read, sorted((folder / STEPS).glob("*.json"))) if result is not None}


def other_devices(out: Path, own: Machine) -> Iterator[tuple[str, int]]:
    """Whose results lie in the campaign's folder beside those of this device and size, and how many."""
    for folder in sorted(path.parent for path in out.glob(f"*/{STEPS}")):
        found = list(read(folder).values())
        if folder.name != own.folder and found:
            yield f"{found[0].machine.device} ({found[0].machine.size})", len(found)


def _place(folder: Path, step: str) -> Path:
    return folder / STEPS / f"{re.sub(r'[^A-Za-z0-9.=-]+', '-', step)}.json"


def _read(path: Path) -> Result | None:
    try:
        found = json.loads(path.read_text())
        return Result(**{**found, "machine": Machine(**found["machine"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
