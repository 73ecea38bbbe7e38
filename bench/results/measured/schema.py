"""What a file of measured results holds: a row a finished run, its columns, and the row as an object.

A file can be checked by whoever has nothing but the file. The run id is the digest of the identity that stands in the row; the
digest of records.csv is that of the text which the row's own cells give; every metric is computed again from them. So a number
that somebody typed does not fit. docs/measured.md has the same columns, compared with these by a test.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bench.results import records
from bench.results.metrics import METRICS, of_run
from bench.results.run_data import RunData
from bench.system.files import sha256

SCHEMA = 1
ANONYMOUS = "anonymous"  # whoever has not said who measured it
CELLS_APART = " "

TEXT, WHOLE, NUMBER, DATE, DIGEST, JSON = "text", "whole number", "number", "date", "hex digits", "JSON"
COST = {
    "seconds_prepare": "opening the stream and preparing the method",
    "seconds_learn": "learning, all tasks together",
    "seconds_evaluate": "scoring all test images after every task",
    "image_passes": "images through an image tower; those that the feature store spared are not counted",
    "trainable_parameters": "of the method",
    "total_parameters": "with the frozen backbone",
    "exemplar_bytes": "kept exemplars",
    "state_bytes": "all else that goes from one task to the next",
    "peak_memory_bytes": "of the process, which may have held other runs before",
    "peak_device_memory_bytes": "of the GPU",
}
COLUMNS: dict[str, tuple[str, str]] = {  # name -> (kind, meaning); metrics follow
    "schema": (WHOLE, "version of this table's layout"),
    "run_id": (DIGEST, "digest of the column identity"),
    "who": (TEXT, "who measured it, as given with --who; anonymous where nobody was named"),
    "published": (DATE, "when bench publish wrote the row, YYYY-MM-DD"),
    **{name: (TEXT, f"as in records.csv: {records.COLUMNS[name]}") for name in records.CONDITIONS},
    "order_seed": (WHOLE, "seed of the class order"),
    "seed": (WHOLE, "seed of everything random in training"),
    "identity": (JSON, "everything that was asked for, every hyper-parameter among it"),
    "bench": (TEXT, "version of the harness"),
    "python": (TEXT, "version; of a run that was continued under another one, both"),
    "torch": (TEXT, "version"),
    "open_clip": (TEXT, "version"),
    "numpy": (TEXT, "version"),
    "cuda": (TEXT, "version that torch was built for"),
    "device": (TEXT, "kind and name"),
    "threads": (WHOLE, "of torch"),
    **{name: (NUMBER, f"cost: {meaning}; empty where it is not known") for name, meaning in COST.items()},
    "weights_digest": (TEXT, "SHA-256 of the weights that were loaded, or architecture and tag"),
    "images": (DIGEST, "of the digests of all training and test images, whatever the order of the tasks"),
    "reference": (DIGEST, "of the reference images and sentences of a method that distils; else empty"),
    "source": (DIGEST, "of the text of the method's source"),
    "records_sha256": (DIGEST, "of records.csv; paths before the names of files are cut off"),
    "samples_sha256": (DIGEST, "of samples.safetensors"),
    "tasks": (JSON, "names of the tasks in learning order"),
    "test_images": (TEXT, "number of test images of each task, separated by spaces"),
    "correct": (TEXT, "the accuracy matrices: after task/evaluated task/candidates=images classified rightly, by spaces"),
    "row_sha256": (DIGEST, "of the cells before this one, as JSON: a list of their texts"),
}
MAY_BE_EMPTY = {"overrides", "limits", "reference", *COST}
LENGTHS = {"run_id": 16, "images": 16, "reference": 16, "source": 8, "records_sha256": 64, "samples_sha256": 64,
           "row_sha256": 64}  # fmt: skip
# one number of a run each: those that need per-image scores, or another run, cannot be computed from a row
METRIC_COLUMNS = tuple(name for name, metric in METRICS.items() if metric.needs == "records")


@dataclass(frozen=True)
class MeasuredRun:
    """A row: the cells of COLUMNS as text, and the metrics; what is computed from the cells is computed when asked for."""

    cells: Mapping[str, str]
    metrics: Mapping[str, float | None]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    @property
    def label(self) -> str:
        """How complaints name it."""
        return f"{self['protocol']}/{self['method']}/{self['run_id']}"

    @cached_property
    def identity(self) -> dict[str, Any]:
        return json.loads(self["identity"])

    @property
    def seeds(self) -> tuple[int, int]:
        """(order seed, seed)."""
        return int(self["order_seed"]), int(self["seed"])

    @cached_property
    def tasks(self) -> list[str]:
        return json.loads(self["tasks"])

    @cached_property
    def test_images(self) -> list[int]:
        return [int(number) for number in self["test_images"].split(CELLS_APART)]

    @cached_property
    def correct(self) -> list[tuple[int, int, str, int]]:
        """(after task, evaluated task, candidates, right ones), in the order of records.csv."""
        found = []
        for cell in self["correct"].split(CELLS_APART):
            place, _, right = cell.partition("=")
            after, evaluated, candidates = place.split("/")
            found.append((int(after), int(evaluated), candidates, int(right)))
        return found

    @cached_property
    def data(self) -> RunData:
        """What metrics are computed from."""
        n = np.array(self.test_images, dtype=float)
        matrices: dict[str, np.ndarray] = {}
        for after, evaluated, candidates, right in self.correct:
            matrix = matrices.setdefault(candidates, np.full((len(n), len(n)), np.nan))
            matrix[after, evaluated] = right / self.test_images[evaluated]
        return RunData(self["scenario"], matrices, n)

    def metrics_from_cells(self) -> dict[str, float | None]:
        return of_run(self.data, METRIC_COLUMNS)

    def records_text(self) -> str:
        """records.csv as the run has written it."""
        described = {name: self[name] for name in ("run_id", *records.CONDITIONS)} | {"schema": self.identity.get("schema")}
        described |= {"order_seed": self.seeds[0], "seed": self.seeds[1], "metric": "accuracy"}
        rows = []
        for after, evaluated, candidates, right in self.correct:
            n = self.test_images[evaluated]
            place = {"after_task": after, "eval_task": evaluated, "eval_name": self.tasks[evaluated], "candidates": candidates}
            rows.append({**described, **place, "value": right / n, "n": n})
        return records.to_csv(rows)

    def digest_of_row(self) -> str:
        """What no other column follows from, such as a version or a name, is under this digest alone."""
        return sha256(json.dumps([self[name] for name in COLUMNS if name != "row_sha256"]).encode())

    def digest_of_records(self) -> str:
        return sha256(self.records_text().encode())


def cells_of(correct: Sequence[tuple[int, int, str, int]]) -> str:
    """The column `correct`.

    >>> cells_of([(0, 0, "seen", 361), (1, 0, "seen", 339)])
    '0/0/seen=361 1/0/seen=339'
    """
    return CELLS_APART.join(f"{after}/{evaluated}/{candidates}={right}" for after, evaluated, candidates, right in correct)
