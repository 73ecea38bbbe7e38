"""One run: learn, evaluate, checkpoint after each task, resume.

A run killed at any moment loses at most the task in flight: state, records and per-sample scores so far lie in one
checkpoint file that is replaced atomically after each task. The final files are written from it, the manifest last.
A checkpoint that is damaged, or does not fit, is said to be so and the run starts over.
"""

import dataclasses
import hashlib
import json
import platform
import sys
import time
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save as save_tensors

from bench.clip import acceleration
from bench.clip.backbone import Backbone
from bench.errors import BenchError, RunFailure, UnfitMethod, one_line
from bench.images.dataset import Folders
from bench.learning.evaluation import Cell, evaluate
from bench.learning.method import Method
from bench.learning.stated import is_stated, may_be_divided, not_dividable
from bench.results import records
from bench.results.run_folder import RECORDS, SAMPLES
from bench.runs import accelerators, checkpoint, failures, kept_model, moments
from bench.runs.moments import Progress
from bench.runs.run import LoadedRun, Run
from bench.runs.watch import Watch
from bench.streams import identity, shots, validation
from bench.streams import reference as references
from bench.streams.features import FeatureStore
from bench.streams.opening import open_stream
from bench.streams.protocol import Protocol
from bench.streams.stream import Stream
from bench.system import method_source, registry
from bench.system.digests import of_plain_data
from bench.system.files import remove_leftovers, sha256, write_atomically
from bench.system.interruption import held_back
from bench.system.method_source import Source
from bench.system.peak_memory import peak_bytes_of_process
from bench.system.phases import phase
from bench.system.processes import ALONE, Processes
from bench.system.progress import listening
from bench.system.randomness import Draws
from bench.system.version import VERSION


def execute(
    loaded: LoadedRun, backbone: Backbone, folders: Folders, progress: Progress = moments.ignore, processes: Processes = ALONE
) -> Literal["finished", "already finished"]:
    """Carry one run to its end, from the start or from its checkpoint. The caller holds the claim to the run.

    processes: of several that carry it out together all learn, and the first one scores and writes.
    """
    run = loaded.run
    if run.processes != processes.count:
        raise ValueError(f"{run.label} is for {run.processes} processes, not for {processes.count}")
    if run.finished:
        return "already finished"
    accelerators.refuse_without_compiler(run.accelerate, run.device)
    if processes.first:
        remove_leftovers(run.folder)
    watch = Watch(run.files.log if processes.first else None, progress)
    with listening(watch), acceleration.accelerated(run.accelerate):
        _execute(loaded, backbone, folders, watch, processes)
    return "finished"


def _execute(loaded: LoadedRun, backbone: Backbone, folders: Folders, watch: Watch, processes: Processes) -> None:
    run = loaded.run
    store = FeatureStore(backbone, folders.features)
    started = time.perf_counter()
    watch.say(0, "preparing")
    with phase("load"):
        stream = open_stream(loaded.protocol, run.order_seed, store, folders, run.limit_train, run.limit_test, run.synthetic)
    method, reference_facts = _prepare(loaded, backbone, stream, store, folders)
    made_from = _made_from(loaded, folders, reference_facts)
    with processes.after_the_first():  # which reads the checkpoint, or takes it away
        journal = _resume(run, method, stream, made_from)
    if journal is None:  # the method may have taken over part of a state: a new one
        method, reference_facts = _prepare(loaded, backbone, stream, store, folders)
        journal = checkpoint.Journal()
    processes.refuse_other({"finished": torch.tensor(journal.finished_tasks)}, "at the start")
    method.processes = processes
    journal.made_from = journal.made_from or made_from | {"environment": environment(backbone.device)}
    watch.begin(len(stream.tasks), journal.finished_tasks, [sum(seconds.values()) for seconds in journal.seconds])
    prepared = time.perf_counter() - started
    described = _description(run, loaded.protocol, records.TOWERS.join([run.backbone, *method.other_towers]))

    for task in stream.tasks[journal.finished_tasks :]:
        last = task.index == len(stream.tasks) - 1
        if method.joint and not last:
            journal.finished_tasks += 1
            continue
        clock, passes_before = time.perf_counter(), backbone.image_passes
        with phase("train"), watch.learning(task.index, task.name):
            method.train()
            method.grow(task)
            method.learn(stream.joined() if method.joint else task.for_training())
            method.eval()
        passes_of_others = processes.total_of_others(backbone.image_passes - passes_before)
        processes.refuse_other(_what_learning_goes_on_from(method), f"after {task.name}")
        if not processes.first:
            processes.meet()  # when the first one has scored
            continue
        learned = time.perf_counter()
        watch.say(task.index, f"evaluating after {task.name}")
        with phase("evaluate"):
            for cell in evaluate(method, stream, task.index):
                _note(journal, described, stream, task.index, cell)
        journal.seconds.append({"learn": learned - clock, "evaluate": time.perf_counter() - learned})
        journal.image_passes += backbone.image_passes - passes_before + passes_of_others
        journal.finished_tasks = task.index + 1
        with held_back(), phase("write"):
            checkpoint.write(run.checkpoint, journal, run.run_id, method.state_dict())
        watch.finished(journal.finished_tasks, task.name, sum(journal.seconds[-1].values()))
        processes.meet()

    if not processes.first:
        return
    watch.say(len(stream.tasks), "writing")
    for task in stream.tasks:
        journal.samples[f"labels/{task.index}"] = task.test.labels.to(torch.int32)
    cost = {
        "seconds_prepare": prepared,
        "seconds_encode": store.seconds,  # of the frozen encoder, contained in the others
        "seconds_per_task": journal.seconds,
        "image_passes": journal.image_passes,
        **_cost(method, backbone),
    }
    conditions = {"test_batches": str(method.test_batches or "do not matter"), "reference": reference_facts}
    conditions |= _shots(loaded.protocol, stream) | _validation(loaded.protocol) | _together(processes)
    with held_back(), phase("write"):
        results = {RECORDS: records.to_csv(journal.rows).encode(), SAMPLES: save_tensors(dict(sorted(journal.samples.items())))}
        if run.files.finished:  # it was carried out again for its model
            _refuse_other_results(run, results)
        if run.keep_model:
            made_from = journal.made_from | {"environment": environment(backbone.device)}
            kept_model.of_run(loaded, method, stream, backbone.digest, made_from).write(run.folder)
        if not run.files.finished:
            _write_results(run, journal, results, cost, backbone, stream, conditions)
        run.checkpoint.unlink(missing_ok=True)
        failures.forget(run)


@phase("train")
def _prepare(
    loaded: LoadedRun, backbone: Backbone, stream: Stream, store: FeatureStore, folders: Folders
) -> tuple[Method, dict[str, Any] | None]:
    """The method before its first task, and facts about the reference data that it was given; UnfitMethod if it cannot be."""
    try:
        return _made(loaded, backbone, stream, store, folders)
    except BenchError as error:
        raise UnfitMethod(f"{loaded.run.method}: {error}") from error


def _made(
    loaded: LoadedRun, backbone: Backbone, stream: Stream, store: FeatureStore, folders: Folders
) -> tuple[Method, dict[str, Any] | None]:
    run = loaded.run
    method = loaded.method(loaded.settings, backbone, stream.scenario, Draws(loaded.protocol.known_as, run.method, run.seed))
    if run.processes > 1:
        _refuse_undividable(method, run.processes)
    if not method.reference_names:
        return method, None
    with phase("load"):
        reference, facts = references.load(method.reference_names, store, folders, run.synthetic)
        if not run.synthetic:
            references.refuse_leaks(reference, stream, method.reference_names.images)
    method.use_reference(reference)
    return method, facts


def _refuse_undividable(method: Method, processes: int) -> None:
    if not may_be_divided(type(method)):
        raise BenchError(not_dividable(processes))
    if any(isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) for layer in method.modules()):
        raise BenchError(
            f"--processes {processes}: its image tower normalises over the images of a batch, and a process has a part of them "
            "alone; a ViT does not"
        )


def _what_learning_goes_on_from(method: Method) -> dict[str, torch.Tensor]:
    """Weights, and what is chosen by whole numbers. Features that every process computes for itself may differ in a last bit."""
    buffers = {name: value for name, value in method.named_buffers() if not value.is_floating_point()}
    return dict(method.named_parameters()) | buffers


@phase("load")
def _made_from(loaded: LoadedRun, folders: Folders, reference_facts: dict[str, Any] | None) -> dict[str, Any]:
    """Digests of what the run is made from beside what its id says: see bench/runs/reuse.py."""
    run, protocol = loaded.run, loaded.protocol
    images = identity.recorded(protocol, run.order_seed, folders, run.limit_train, run.limit_test, run.synthetic)
    if run.images and of_plain_data(images) != run.images:
        raise BenchError(f"{run.label}: its images have changed since the command began; repeat it")
    source = registry.source_of_method(run.method_given)
    return {
        "source": source.to_json() if source else None,
        "images": images,
        "words": identity.words_of_protocol(protocol, run.order_seed),
        "reference": reference_facts,
    }


def _resume(run: Run, method: Method, stream: Stream, made_from: dict[str, Any]) -> checkpoint.Journal | None:
    """Load the checkpoint into the method; an empty journal if there is none, None if it is of no use (it is then gone)."""
    if not run.checkpoint.exists():
        return checkpoint.Journal()
    try:
        journal, run_id, state = checkpoint.from_bytes(run.checkpoint.read_bytes())
        if run_id != run.run_id:
            raise checkpoint.Damaged("it belongs to another run")
        _refuse_mixture(journal.made_from, made_from)
        for task in stream.tasks[: journal.finished_tasks]:
            method.grow(task.for_training())
        _take_over(method, state)
    except checkpoint.Damaged as error:
        reason = one_line(error)
        print(f"{run.label}: its checkpoint cannot be used ({reason}); starting over", file=sys.stderr)
        run.checkpoint.unlink(missing_ok=True)
        return None
    method.eval()
    return journal


def _refuse_mixture(then: dict[str, Any], now: dict[str, Any]) -> None:
    """One half of a run by one code or on one set of images, the other half by others, would be the number of neither."""
    since, source = Source.from_json(then.get("source")), Source.from_json(now["source"])
    if since and source and method_source.changed_modules(since, source):
        raise checkpoint.Damaged("it was begun by other code of the method")
    for key, what in (("images", "images"), ("words", "classes or prompts"), ("reference", "reference data")):
        if then.get(key) is not None and then[key] != now[key]:
            raise checkpoint.Damaged(f"it was begun on other {what}")


def _take_over(method: Method, state: dict[str, torch.Tensor]) -> None:
    """Load a state into the method; Damaged if it is not of this method, whose code may have changed since."""
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise  # too little memory, for instance
        raise checkpoint.Damaged(f"it does not fit the method: {one_line(error)}") from error


# -- results ----------------------------------------------------------------------------------------------------


def _description(run: Run, protocol: Protocol, towers: str) -> dict[str, Any]:
    """The columns of records.csv that are the same in all rows of a run."""
    return {
        "schema": records.SCHEMA,
        "run_id": run.run_id,
        "protocol": run.protocol,
        "protocol_version": run.protocol_version,
        "scenario": protocol.kind,
        "method": run.method,
        "overrides": run.overrides,
        "backbone": towers,
        "pretrained": run.weights_label,
        "templates": protocol.templates_digest(),
        "exemplars": protocol.exemplars,
        "limits": run.limits,
        "order_seed": run.order_seed,
        "seed": run.seed,
    }


@phase("write")
def _note(journal: checkpoint.Journal, described: dict[str, Any], stream: Stream, after_task: int, cell: Cell) -> None:
    """One scored cell into the journal: a row if it has an accuracy, and its per-sample scores."""
    place = f"{after_task}/{cell.eval_task}/{cell.candidates}"
    for name in ("prediction", "confidence", "entropy", "energy"):
        journal.samples[f"{name}/{place}"] = torch.from_numpy(np.ascontiguousarray(getattr(cell, name)))
    if cell.tied:
        journal.ties.append({"after_task": after_task, "eval_task": cell.eval_task, "images": cell.tied})
    if cell.correct is None:
        return
    n = len(cell.prediction)
    journal.rows.append(
        described
        | {
            "after_task": after_task,
            "eval_task": cell.eval_task,
            "eval_name": stream.tasks[cell.eval_task].name,
            "candidates": cell.candidates,
            "metric": "accuracy",
            "value": cell.correct / n,
            "n": n,
        }
    )


def _shots(protocol: Protocol, stream: Stream) -> dict[str, Any]:
    """By which rule the training images were chosen, and which these were, where the rule is another program's."""
    if protocol.shots is None or protocol.shot_rule == "own":
        return {}
    chosen = {}
    for task in stream.tasks:
        (source, rows), *_ = task.train.pieces
        names = source.names()
        chosen[task.name] = shots.digest([names[row] for row in rows.tolist()], source.labels[rows].tolist())
    return {"shots": {"rule": shots.RULES[protocol.shot_rule].summary, "chosen": chosen}}


def _together(processes: Processes) -> dict[str, Any]:
    return {"processes": processes.count} if processes.count > 1 else {}


def _validation(protocol: Protocol) -> dict[str, Any]:
    """What "test" means in the results of this run, where no test image was opened."""
    if not protocol.validation:
        return {}
    return {"validation": {"held_out": protocol.validation.text, "rule": validation.RULE}}


def _cost(method: Method, backbone: Backbone) -> dict[str, Any]:
    own = list(method.parameters())
    memory = {"peak_memory_bytes": peak_bytes_of_process()}
    if backbone.device.type == "cuda":
        memory["peak_device_memory_bytes"] = torch.cuda.max_memory_allocated(backbone.device)
    return {
        "trainable_parameters": sum(p.numel() for p in own if p.requires_grad),
        "total_parameters": backbone.frozen_parameters + sum(p.numel() for p in own),
        "exemplar_bytes": method.exemplar_bytes() if is_stated(type(method), "exemplar_bytes") else None,
        "state_bytes": sum(value.numel() * value.element_size() for value in method.state_dict().values()),
        **memory,
    }


def _refuse_other_results(run: Run, results: dict[str, bytes]) -> None:
    """A model belongs to the numbers beside it: where these come out otherwise now, they stay, and no model is kept."""
    for name, content in results.items():
        path = run.folder / name
        if not path.is_file() or path.read_bytes() != content:
            raise RunFailure(
                f"carried out again for its model, it has other results than those stored in {path}, which stay as they are; "
                "no model is kept: --fresh starts over, another --out keeps both"
            )


def _write_results(
    run: Run,
    journal: checkpoint.Journal,
    results: dict[str, bytes],
    cost: dict[str, Any],
    backbone: Backbone,
    stream: Stream,
    conditions: dict[str, Any],
) -> None:
    for name, content in results.items():
        write_atomically(run.folder / name, content)
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
        "backbone": backbone.facts,
        "source": journal.made_from.get("source"),
        "protocol_given": run.protocol_given,
        "content": run.content,
        "images": journal.made_from.get("images"),
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
        **conditions,
        **_accelerated(),
        **({"ties": journal.ties} if stream.scenario.kind == "task-agnostic" else {}),
        "templates": sorted({t for templates in stream.scenario.templates for t in templates}),
        "cost": cost,
        "environment": environment(backbone.device),
        **_begun_elsewhere(journal, backbone),
        "earlier_failures": [dataclasses.asdict(failure) for failure in failures.of(run)],
        "checksums": {name: sha256(content) for name, content in results.items()},
    }
    write_atomically(run.files.manifest, json.dumps(manifest, indent=1, default=str))


def _accelerated() -> dict[str, Any]:
    """By what the run was accelerated, and how often that was called in the process that ended it."""
    found = acceleration.of_this_run()
    return {"accelerated": dataclasses.asdict(found)} if found else {}


def _begun_elsewhere(journal: checkpoint.Journal, backbone: Backbone) -> dict[str, Any]:
    """The versions and hardware of the first tasks, where an interrupted run was continued under others."""
    begun = journal.made_from.get("environment")
    return {"begun_in": begun} if begun and begun != environment(backbone.device) else {}


def environment(device: torch.device) -> dict[str, str | int]:
    """Versions and hardware that a reader needs to judge or repeat a number."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    packages = {p: version(p) for p in ("torch", "open_clip_torch", "numpy", "scikit-learn", "pandas")}
    return {
        "bench": VERSION,
        "python": platform.python_version(),
        **packages,
        "cuda": torch.version.cuda or "none",
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
    }
