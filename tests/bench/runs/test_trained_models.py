"""A kept model, read from its file alone, gives what the run's own evaluation has stored, for every registered method."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from bench.images.dataset import Folders
from bench.learning.stated import scenarios_of
from bench.runs import trained_model
from bench.streams import sources
from bench.system import registry
from tests.bench.small_runs import CLASSES_PER_TASK, TASKS, execute, loaded, small_run
from tests.every_method import every_method

QUICK = (
    "attriclip", "clap", "coda-prompt", "coop", "finetune", "icarl", "moe-adapters", "proof", "ranpac", "simplecil", "slca",
)  # fmt: skip


def kept_run(name, out, **changes):
    return dataclasses.replace(small_run(name, out, **changes), keep_model=True)


def test_images(run, cache, kind) -> list[np.ndarray]:
    """(n, height, width, 3) of each task's test images, in the order in which they are evaluated."""
    protocol = loaded(run, kind).protocol
    source = sources.images(protocol, "mini60", "test", Folders(cache / "no-data", cache), run.limit_test)
    rows = [np.flatnonzero(np.isin(source.labels, plan.labels)) for plan in protocol.tasks(0)]
    return [np.stack(list(source.read(own))) for own in rows]


test_images.__test__ = False


def equals_the_evaluation(run, cache, kind):
    """All test images together, told apart by their tasks; where the task of an image is known, a task at a time."""
    stored = load_file(run.folder / "samples.safetensors")
    model = trained_model.load(run.folder, folders=Folders(cache / "no-data", cache))
    images = test_images(run, cache, kind)
    rounds = [[task] for task in range(TASKS)] if kind == "task-incremental" else [list(range(TASKS))]
    candidates = {"class-incremental": "seen", "task-incremental": "task", "task-agnostic": "all"}[kind]
    for together in rounds:
        given = [image for task in together for image in images[task]]
        tasks = [task for task in together for _ in images[task]]
        first = CLASSES_PER_TASK * together[0]
        own = model.class_names[first : first + CLASSES_PER_TASK]
        classes = own if candidates == "task" else "seen"  # after the last task these are all
        scores, predicted = model.scores(given, classes, tasks), model.predict(given, classes, tasks)
        found = {
            "confidence": scores.log_softmax(dim=-1).max(dim=-1).values.exp(),
            "energy": scores.logsumexp(dim=-1),
            "prediction": torch.tensor([model.class_names.index(name) for name in predicted], dtype=torch.int32),
        }
        for name, values in found.items():
            wanted = [stored[f"{name}/{TASKS - 1}/{task}/{candidates}"] for task in together]
            assert torch.equal(values, torch.from_numpy(np.concatenate(wanted))), name


@pytest.mark.parametrize("name", every_method(QUICK))
def test_what_is_kept_scores_as_the_run_did(name, tmp_path, cache):
    run = kept_run(name, tmp_path)
    kind = scenarios_of(registry.load("method", name))[0]
    execute(run, cache, kind)
    torch.manual_seed(5)  # as another process might have it
    equals_the_evaluation(run, cache, kind)
