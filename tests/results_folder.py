"""Small results folders for tests: finished runs as bench.runs.runner writes them, with accuracies that the test chooses."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from bench.learning.evaluation import candidate_sets
from bench.results import records
from bench.streams.stream import Scenario, Stream, Task
from bench.system.files import sha256

CONDITIONS = {
    "protocol": "toy-3x2", "protocol_version": "1", "scenario": "class-incremental", "method": "coop", "overrides": "",
    "backbone": "mini", "pretrained": "mini", "templates": "00e12345", "exemplars": "none", "limits": "",
}  # fmt: skip


def write_run(
    out: Path,
    accuracies: Sequence[Sequence[float]],
    *,
    seed: int = 0,
    order_seed: int = 0,
    images: int = 10,
    classes: int = 2,
    first_right: int = 0,
    joint: bool = False,
    zero_shot: bool = True,
    **conditions: str,
) -> Path:
    """One finished run below `out`; returns its folder.

    accuracies: (T, T) fractions, row = after task, column = evaluated task, used for every set of candidates. Every
    task has `images` test images of `classes` classes (2 or more); of those, round(accuracy * images) are predicted right,
    counted cyclically from image `first_right`. A right prediction has confidence 0.9, a wrong one 0.6. joint: only the last
    row exists. zero_shot=False: no text side, so future tasks are scored among the seen classes only.
    """
    facts = CONDITIONS | conditions
    identity = {**facts, "order_seed": order_seed, "seed": seed}
    identity["schema"] = records.SCHEMA
    run_id = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    tasks = len(accuracies)
    names = [f"task {task}" for task in range(tasks)]
    labels = [np.repeat(np.arange(classes), -(-images // classes))[:images] + classes * task for task in range(tasks)]
    samples = {f"labels/{task}": labels[task].astype(np.int32) for task in range(tasks)}
    stream = _stream(names, classes)
    rows = []
    for after in [tasks - 1] if joint else range(tasks):
        for task in range(tasks):
            learned = task <= after
            right = np.roll(np.arange(images) < round(accuracies[after][task] * images), first_right)
            for candidates, competing in candidate_sets(stream, after, task, zero_shot).items():
                competing = np.array(competing)
                answerable = learned or candidates != "seen"
                hits = right if answerable else np.zeros(images, dtype=bool)
                other = competing[(np.searchsorted(competing, labels[task]) + 1) % len(competing)]
                place = f"{after}/{task}/{candidates}"
                samples[f"prediction/{place}"] = np.where(hits, labels[task], other).astype(np.int32)
                samples[f"confidence/{place}"] = np.where(hits, 0.9, 0.6).astype(np.float32)
                samples[f"entropy/{place}"] = np.where(hits, 0.3, 0.7).astype(np.float32)
                samples[f"energy/{place}"] = (np.where(hits, 4.0, 3.0) + learned).astype(np.float32)
                if answerable:
                    where = {"after_task": after, "eval_task": task, "eval_name": names[task], "candidates": candidates}
                    score = {"metric": "accuracy", "value": float(right.mean()), "n": images}
                    rows.append({**identity, "run_id": run_id, **where, **score})

    folder = Path(out) / facts["protocol"] / facts["method"] / run_id
    folder.mkdir(parents=True)
    table, arrays = records.to_csv(rows).encode(), save(dict(sorted(samples.items())))
    (folder / "records.csv").write_bytes(table)
    (folder / "samples.safetensors").write_bytes(arrays)
    manifest = {
        "run_id": run_id,
        "status": "finished",
        "identity": {**identity, "method_version": "1", "settings": {"epochs": 3}, "weights": "0" * 64, "device": "cpu"},
        "overrides": facts["overrides"],
        "pretrained": None if facts["pretrained"] == facts["backbone"] else facts["pretrained"],
        "weights_digest": sha256(facts["pretrained"].encode()),
        "images_digest": sha256(f"{facts['protocol']} {order_seed} {images}".encode()),
        "tasks": [
            {
                "name": names[task],
                "classes": [f"class {c}" for c in range(classes * task, classes * (task + 1))],
                "train_images": images,
                "test_images": images,
            }
            for task in range(tasks)
        ],
        "templates": ["a photo of a {}."],
        "cost": {
            "seconds_this_session": 12.5,
            "seconds_per_task": [{"learn": 3.0, "evaluate": 1.0}] * (1 if joint else tasks),
            "image_encoder_passes_this_session": 0,
            "trainable_parameters": 2048,
            "total_parameters": 1_500_000,
            "exemplar_bytes": 0,
            "state_bytes": 8192,
            "peak_memory_bytes": 500_000_000,
        },
        "environment": {"bench": "0", "python": "3.11", "torch": "2", "device": "cpu x86_64", "threads": 1},
        "checksums": {"records.csv": sha256(table), "samples.safetensors": sha256(arrays)},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return folder


def _stream(names: Sequence[str], classes: int) -> Stream:
    """Tasks of so many classes each, without images."""
    owner = tuple(task for task in range(len(names)) for _ in range(classes))
    class_names = tuple(f"class {c}" for c in range(len(owner)))
    scenario = Scenario("class-incremental", class_names, (("{}",),) * len(owner), owner)
    own = [tuple(range(classes * task, classes * (task + 1))) for task in range(len(names))]
    return Stream(scenario, tuple(Task(task, name, own[task], None, None) for task, name in enumerate(names)))
