"""Is a run that says it has finished whole, and do its numbers follow from what it has stored?

What is feared: a disk that lost bytes, a file that somebody edited, a folder that was copied under another name. The manifest
holds the checksums of the two other files, and the run id is the digest of what the manifest says was asked for. Whoever edits
an accuracy and its checksum as well is found out by the predictions, image by image, that the run has kept.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError, one_line
from bench.results import records
from bench.results.run_folder import MANIFEST, RECORDS, SAMPLES, RunFolder, run_id_of
from bench.results.samples import Samples
from bench.system.files import file_digest

IDENTIFYING = ("protocol", "protocol_version", "method", "order_seed", "seed", "limits")  # in records as in the identity


def damages(run: RunFolder) -> Iterator[str]:
    """What is wrong with a run that says it has finished: files that are missing, cannot be read, or are not those it wrote."""
    yield from other_files(run)
    try:
        records.read_csv(run.records)
    except BenchError as error:
        yield str(error)


def other_files(run: RunFolder) -> Iterator[str]:
    """Which files of a run that says it has finished are missing or are not those that it wrote."""
    try:
        manifest = records.read_manifest(run.path)
        if not run_id_of(manifest["identity"]) == manifest["run_id"] == run.run_id:
            yield f"{MANIFEST} does not belong to this run"
        checksums = manifest["checksums"]
        for file in (RECORDS, SAMPLES):
            path = run.path / file
            if not path.is_file():
                yield f"{file} is missing"
            elif file_digest(path) != checksums[file]:
                yield f"{file} is damaged: its checksum differs"
    except BenchError as error:
        yield str(error)
    except (OSError, KeyError, TypeError, AttributeError) as error:
        yield f"{MANIFEST} is damaged ({type(error).__name__}: {one_line(error)})"


def contradictions(run: RunFolder, manifest: Mapping[str, Any], table: pd.DataFrame) -> Iterator[str]:
    """In what the files of a run that is whole disagree with each other; table: its records, as read_csv gives them."""
    identity = manifest["identity"]
    first = table.iloc[0]
    if set(table["run_id"]) != {run.run_id}:
        yield f"{RECORDS} holds rows of another run"
    for name in IDENTIFYING:
        if str(first[name]) != str(identity.get(name)):
            yield f"{RECORDS} says {name} {first[name]}, {MANIFEST} {identity.get(name)}"
    if str(first["backbone"]).split(records.TOWERS)[0] != identity.get("backbone"):
        yield f"{RECORDS} says backbone {first['backbone']}, {MANIFEST} {identity.get('backbone')}"
    yield from _counts(table, manifest)
    yield from _accuracies(table, Samples(run.samples))


def _counts(table: pd.DataFrame, manifest: Mapping[str, Any]) -> Iterator[str]:
    tasks = [(str(task.get("name")), task.get("test_images")) for task in manifest.get("tasks", [])]
    said = table.drop_duplicates("eval_task").sort_values("eval_task")
    if [(name, int(n)) for name, n in zip(said["eval_name"], said["n"])] != tasks:
        yield f"{RECORDS} and {MANIFEST} disagree on the tasks or on their numbers of test images"


def _accuracies(table: pd.DataFrame, samples: Mapping[str, np.ndarray]) -> Iterator[str]:
    """The first accuracy that the stored predictions do not give."""
    for row in table.itertuples():
        place = f"{row.after_task}/{row.eval_task}/{row.candidates}"
        with contextlib.suppress(KeyError):
            prediction, labels = samples[f"prediction/{place}"], samples[f"labels/{row.eval_task}"]
            if len(prediction) != len(labels) or len(labels) != row.n:
                yield f"{RECORDS} has {row.n} test images in {place}, {SAMPLES} {len(labels)}"
                return
            found = float(np.mean(prediction == labels))
            if abs(found - row.value) > 1e-9:
                yield f"{RECORDS} has {row.value} in {place}, the predictions in {SAMPLES} give {found}"
                return
            continue
        yield f"{SAMPLES} lacks the predictions of {place}"
        return
