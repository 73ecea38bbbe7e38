"""The files of a run: where they lie, what they are called, and by which rule its folder gets its name.

    <results>/<protocol>/<method>/<run id>/
        records.csv              a row for every accuracy (bench.results.records)
        samples.safetensors      what was predicted for every test image (bench.results.samples)
        manifest.json            what was run, on what, how long it took; written last: a folder without one is unfinished
        log.csv                  losses of training, epoch by epoch, while they come (bench.results.training_log)
        checkpoint.safetensors   what an unfinished run goes on from
        traceback.txt            of the last attempt that failed, until one succeeds
        failure.json             the attempts that failed, until one succeeds
        model.safetensors        the trained model, where it was asked for (bench.runs.kept_model)
        places.json              where on this machine the files and folders lie that the model names, if it names any
        manifest.damaged.json    the manifest of a run whose results are not whole, set aside: the run counts as unfinished
    <results>/.locks/<run id>.lock   held by the process that carries the run out

What writes these files, reads them or looks for them asks here for their names, so that no two places can disagree on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.system.digests import of_plain_data

RECORDS = "records.csv"
SAMPLES = "samples.safetensors"
MANIFEST = "manifest.json"
LOG = "log.csv"
CHECKPOINT = "checkpoint.safetensors"
FAILURE = "failure.json"
TRACEBACK = "traceback.txt"
DAMAGED_MANIFEST = "manifest.damaged.json"
MODEL = "model.safetensors"
PLACES = "places.json"
NAMES = frozenset({RECORDS, SAMPLES, MANIFEST, LOG, CHECKPOINT, FAILURE, TRACEBACK, DAMAGED_MANIFEST, MODEL, PLACES})
LOCKS = ".locks"


def run_id_of(identity: Mapping[str, Any]) -> str:
    """The id of a run: 16 hex digits of the digest of everything that was asked for. Another fact makes another run.

    >>> run_id_of({"method": "coop", "seed": 0}) == run_id_of({"seed": 0, "method": "coop"})
    True
    >>> run_id_of({"method": "coop", "seed": 0}), run_id_of({"method": "coop", "seed": 1})
    ('7fdec9c7f185d1bb', '8b5d94ec2eda1437')
    """
    return of_plain_data(identity)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, and the files in it and about it; nothing says that they exist.

    >>> folder = RunFolder.of(Path("results"), "mini60-6x10", "coop", "dda9d1dd782db4ec")
    >>> folder.records.as_posix(), folder.lock.as_posix()
    ('results/mini60-6x10/coop/dda9d1dd782db4ec/records.csv', 'results/.locks/dda9d1dd782db4ec.lock')
    """

    path: Path

    @classmethod
    def of(cls, results: Path, protocol: str, method: str, run_id: str) -> "RunFolder":
        return cls(results / protocol / method / run_id)

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def records(self) -> Path:
        return self.path / RECORDS

    @property
    def samples(self) -> Path:
        return self.path / SAMPLES

    @property
    def manifest(self) -> Path:
        return self.path / MANIFEST

    @property
    def log(self) -> Path:
        return self.path / LOG

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT

    @property
    def failure(self) -> Path:
        return self.path / FAILURE

    @property
    def traceback(self) -> Path:
        return self.path / TRACEBACK

    @property
    def model(self) -> Path:
        """The trained model, if it was kept."""
        return self.path / MODEL

    @property
    def places(self) -> Path:
        """Where the things lie that the model names; there is no such file if it names none."""
        return self.path / PLACES

    @property
    def damaged_manifest(self) -> Path:
        return self.path / DAMAGED_MANIFEST

    @property
    def lock(self) -> Path:
        """What the process that carries the run out holds."""
        return self.path.parents[2] / LOCKS / f"{self.run_id}.lock"

    @property
    def finished(self) -> bool:
        return self.manifest.exists()


def finished_runs(results: Path) -> list[RunFolder]:
    """The finished runs of a results folder, sorted by their paths."""
    return [RunFolder(file.parent) for file in sorted(results.glob(f"*/*/*/{MANIFEST}"))]
