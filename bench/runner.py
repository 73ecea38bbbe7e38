"""One run: learn, evaluate, checkpoint after each task, resume.

A run killed at any moment loses at most the task in flight: state, records and per-sample scores so far lie in one
checkpoint file that is replaced atomically after each task. The final files are written from it, the manifest last.
"""

import dataclasses
import hashlib
import json
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from bench import __version__, records
from bench.backbone import Backbone
from bench.evaluation import Cell, evaluate
from bench.features import FeatureStore
from bench.files import sha256, write_atomically
from bench.method import Method
from bench.plan import Run
from bench.randomness import Draws
from bench.stream import Stream

Progress = Callable[[int, str], None]  # (tasks finished, what is happening now)


@dataclass
class Journal:
    """What a run has produced so far."""

    finished_tasks: int = 0
    rows: list[dict] = field(default_factory=list)
    samples: dict[str, torch.Tensor] = field(default_factory=dict)
    seconds: list[dict[str, float]] = field(default_factory=list)  # per task: learn, evaluate


def execute(run: Run, backbone: Backbone, cache: Path, progress: Progress = lambda done, what: None) -> str:
    """Carry one run to its end, from the start or from its checkpoint. Returns "finished" or "already finished"."""
    if run.finished:
        return "already finished"
    store = FeatureStore(backbone, cache / "features")
    passes_before, started = backbone.image_passes, time.perf_counter()
    progress(0, "preparing")
    stream = run.protocol.stream(run.order_seed, store, cache, run.limit_train, run.limit_test)
    method = run.method(run.settings, backbone, stream.scenario, Draws(run.protocol.name, run.method_name, run.seed))
    checkpoint = run.folder / "checkpoint.safetensors"
    journal = _resume(checkpoint, run, method, stream)

    for task in stream.tasks[journal.finished_tasks :]:
        last = task.index == len(stream.tasks) - 1
        if method.joint and not last:
            journal.finished_tasks += 1
            continue
        progress(task.index, f"learning {task.name}")
        clock = time.perf_counter()
        method.train()
        method.grow(task)
        method.learn(stream.joined() if method.joint else task.for_training())
        method.eval()
        learned = time.perf_counter()
        progress(task.index, f"evaluating after {task.name}")
        for cell in evaluate(method, stream, task.index):
            _note(journal, run, stream, task.index, cell)
        journal.seconds.append({"learn": learned - clock, "evaluate": time.perf_counter() - learned})
        journal.finished_tasks = task.index + 1
        write_atomically(checkpoint, _checkpoint(journal, run, method))

    progress(len(stream.tasks), "writing")
    for task in stream.tasks:
        journal.samples[f"labels/{task.index}"] = task.test.labels.to(torch.int32)
    total = time.perf_counter() - started
    cost = {
        "seconds_this_session": total,
        "seconds_per_task": journal.seconds,
        "image_encoder_passes_this_session": backbone.image_passes - passes_before,
        **_cost(method, backbone),
    }
    _write_results(run, journal, cost, backbone, stream)
    checkpoint.unlink(missing_ok=True)
    return "finished"


def resume_point(run: Run) -> int:
    """How many tasks of an unfinished run are done."""
    try:
        return _checkpoint_facts((run.folder / "checkpoint.safetensors").read_bytes())["finished_tasks"]
    except (OSError, ValueError, KeyError):
        return 0


# -- checkpoint -------------------------------------------------------------------------------------------------


def _checkpoint(journal: Journal, run: Run, method: Method) -> bytes:
    tensors = {f"state/{name}": value.contiguous().clone() for name, value in method.state_dict().items()}
    tensors |= {f"samples/{name}": value for name, value in journal.samples.items()}
    facts = {
        "run_id": run.run_id,
        "finished_tasks": journal.finished_tasks,
        "rows": journal.rows,
        "seconds": journal.seconds,
    }
    return save_tensors(tensors, metadata={"facts": json.dumps(facts)})


def _checkpoint_facts(data: bytes) -> dict[str, Any]:
    """The JSON part of a checkpoint, read without touching its tensors."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["facts"])


def _resume(checkpoint: Path, run: Run, method: Method, stream: Stream) -> Journal:
    """Load the checkpoint into the method, if there is one; otherwise an empty journal."""
    if not checkpoint.exists():
        return Journal()
    data = checkpoint.read_bytes()
    facts = _checkpoint_facts(data)
    if facts["run_id"] != run.run_id:
        raise ValueError(f"{checkpoint} belongs to another run")
    tensors = load_tensors(data)
    finished = facts["finished_tasks"]
    for task in stream.tasks[:finished]:
        method.grow(task.for_training())
    state = {name.removeprefix("state/"): value for name, value in tensors.items() if name.startswith("state/")}
    method.load_state_dict(state)
    method.eval()
    samples = {name.removeprefix("samples/"): value for name, value in tensors.items() if name.startswith("samples/")}
    return Journal(finished, facts["rows"], samples, facts["seconds"])


# -- results ----------------------------------------------------------------------------------------------------


def _note(journal: Journal, run: Run, stream: Stream, after_task: int, cell: Cell) -> None:
    """One scored cell into the journal: a row if it has an accuracy, and its per-sample scores."""
    place = f"{after_task}/{cell.eval_task}/{cell.candidates}"
    for name in ("prediction", "confidence", "entropy", "energy"):
        journal.samples[f"{name}/{place}"] = torch.from_numpy(np.ascontiguousarray(getattr(cell, name)))
    if cell.correct is None:
        return
    n = len(cell.prediction)
    journal.rows.append(
        {
            "schema": records.SCHEMA,
            "run_id": run.run_id,
            "protocol": run.protocol.name,
            "protocol_version": run.protocol.version,
            "scenario": run.protocol.kind,
            "method": run.method_name,
            "overrides": run.overrides,
            "backbone": run.backbone,
            "pretrained": run.pretrained or run.backbone,
            "templates": run.protocol.templates_digest(),
            "exemplars": run.protocol.exemplars,
            "limits": run.limits,
            "order_seed": run.order_seed,
            "seed": run.seed,
            "after_task": after_task,
            "eval_task": cell.eval_task,
            "eval_name": stream.tasks[cell.eval_task].name,
            "candidates": cell.candidates,
            "metric": "accuracy",
            "value": cell.correct / n,
            "n": n,
        }
    )


def _cost(method: Method, backbone: Backbone) -> dict[str, Any]:
    own = list(method.parameters())
    frozen = sum(p.numel() for p in backbone.clip.parameters())
    memory = {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if backbone.device.type == "cuda":
        memory["peak_device_memory_bytes"] = torch.cuda.max_memory_allocated(backbone.device)
    return {
        "trainable_parameters": sum(p.numel() for p in own if p.requires_grad),
        "total_parameters": frozen + sum(p.numel() for p in own),
        "exemplar_bytes": method.exemplar_bytes(),
        **memory,
    }


def _write_results(run: Run, journal: Journal, cost: dict, backbone: Backbone, stream: Stream) -> None:
    table = records.to_csv(journal.rows).encode()
    samples = save_tensors(dict(sorted(journal.samples.items())))
    write_atomically(run.folder / "records.csv", table)
    write_atomically(run.folder / "samples.safetensors", samples)
    images = hashlib.sha256()
    for task in stream.tasks:
        for split in (task.train, task.test):
            for source, rows in split.pieces:
                images.update(source.digest.encode() + rows.tobytes())
    manifest = {
        "run_id": run.run_id,
        "status": "finished",
        "identity": run.identity,
        "overrides": run.overrides,
        "pretrained": run.pretrained,
        "weights_digest": backbone.digest,
        "images_digest": images.hexdigest(),
        "tasks": [
            {
                "name": task.name,
                "classes": [stream.scenario.class_names[c] for c in task.classes],
                "train_images": len(task.train),
                "test_images": len(task.test),
            }
            for task in stream.tasks
        ],
        "templates": sorted({t for templates in stream.scenario.templates for t in templates}),
        "cost": cost,
        "environment": environment(backbone.device),
        "checksums": {"records.csv": sha256(table), "samples.safetensors": sha256(samples)},
    }
    write_atomically(run.folder / "manifest.json", json.dumps(manifest, indent=1, default=str))


def environment(device: torch.device) -> dict[str, str | int]:
    """Versions and hardware that a reader needs to judge or repeat a number."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    packages = {p: version(p) for p in ("torch", "open_clip_torch", "numpy", "scikit-learn", "pandas")}
    return {
        "bench": __version__,
        "python": platform.python_version(),
        **packages,
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
    }
