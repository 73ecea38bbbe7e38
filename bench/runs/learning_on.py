"""`bench learn`: a kept model learns one more task, from a folder of the user's images, and is kept again.

It is what a run does with a task (grow, learn, evaluate), with the method built around its kept state for a stream that has the
new classes, too. Draws are named as in the run that the model comes from, so that a model that learns the seventh task is the one
of a run over seven, for the methods that promise it (Method.continues_as_one_run).
"""

import dataclasses
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bench.errors import BenchError, RunFailure
from bench.images.dataset import Folders
from bench.learning import evaluation
from bench.learning.method import Method
from bench.runs import earlier_images, kept_model, trained_model
from bench.runs.kept_model import KeptModel, LearnedTask
from bench.streams import reference as references
from bench.streams.features import FeatureStore
from bench.streams.protocol import Protocol
from bench.streams.stream import Split, Task
from bench.system.files import write_atomically

REPORT = "learned.json"


@dataclass(frozen=True)
class Learned:
    """What came of it."""

    folder: Path  # where the new model is
    task: str
    classes: int  # of the task
    train_images: int
    test_images: int
    accuracy: float  # on the test images of the task, among `competing` classes
    competing: int

    def in_words(self) -> str:
        return (
            f"learned {self.task!r}: {self.classes} classes, {self.train_images} images; {100 * self.accuracy:.1f}% of its "
            f"{self.test_images} test images are right among {self.competing} classes; the model is in {self.folder}"
        )


def learn(run: Path, folder: Path, new: Path, device: str | None, folders: Folders, method_given: str | None = None) -> Learned:
    """Continue the kept model of a run with the task in a folder, and keep it in the folder `new`.

    method_given: its method as FILE.py:CLASS, where that does not lie where the model was made.
    """
    _refuse_place(new)
    kept = kept_model.read(run)
    kind = trained_model.kind_of(kept, method_given)
    _refuse(kept, kind)
    protocol = earlier_images.protocol_of(folder)
    task_of_user = _described(kept, protocol, folder, folders)
    backbone = trained_model.backbone_of(kept, device)
    store = FeatureStore(backbone, folders.features)
    task = replace(earlier_images.as_task(protocol, task_of_user, store, folders), index=len(kept.tasks))
    assert isinstance(task.test, Split)
    scenario = kept_model.with_classes(kept.scenario, _names(protocol), kept.templates or _templates(protocol))
    earlier = earlier_images.learned_tasks(kept, store, folders)
    with trained_model.threads_of(kept):
        method = trained_model.build(kept, backbone, kind, scenario, earlier)
        _give_reference(kept, method, store, folders)
        _teach(kept, method, task)
        found = _evaluated(method, task, task.test)
    after = replace(kept, scenario=scenario, tasks=(*kept.tasks, task_of_user), state=method.state_dict())
    after.write(new)
    learned = Learned(new, task.name, len(task.classes), len(task.train), len(task.test), *found)
    write_atomically(new / REPORT, json.dumps(_report(learned, run, folder), indent=1))
    return learned


def _refuse_place(new: Path) -> None:
    if new.exists() and (not new.is_dir() or any(new.iterdir())):
        raise BenchError(f"-o {new}: there is something already; name a folder that is new or empty")
    above = next(folder for folder in [new, *new.absolute().parents] if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):  # told now, and not when the task has been learned
        raise BenchError(f"-o {new}: nothing can be written in {above}")


def _refuse(kept: KeptModel, kind: type[Method]) -> None:
    name = kept.run.method
    if kind.joint:
        raise BenchError(f"{name} learns all tasks at once, so it cannot learn one more; run it on a stream that has the task")
    if kind.cannot_continue:
        raise BenchError(f"{name} cannot learn one more task: {kind.cannot_continue}")
    if kept.embeddings:
        raise BenchError(f"this model of {name} was trained on embeddings and cannot encode images; run it on those of all tasks")
    if kept.run.synthetic:
        raise BenchError(f"this model of {name} was trained on stand-in images, which mean nothing; use one of a real run")


def _names(protocol: Protocol) -> tuple[str, ...]:
    return protocol.scenario(0).class_names


def _templates(protocol: Protocol) -> tuple[str, ...]:
    return protocol.scenario(0).templates[0]


def _described(kept: KeptModel, protocol: Protocol, folder: Path, folders: Folders) -> LearnedTask:
    """The task as the kept model will name it; BenchError if a class of it is known already."""
    names, before = _names(protocol), kept.scenario.class_names
    known = [name for name in names if name in before]
    if known and not kept.scenario.task_known:
        some = ", ".join(known[:3]) + (", ..." if len(known) > 3 else "")
        are = "is" if len(known) == 1 else "are"
        raise BenchError(f"{folder}: {some} {are} among the classes of the model; a task brings new ones")
    if kept.n_learned < len(before):
        raise BenchError("the model has not learned all classes of its stream")
    place = folder.expanduser().absolute()
    positions = tuple(range(len(before), len(before) + len(names)))
    return LearnedTask(place.name, positions, str(place), earlier_images.digest_of(protocol, folders))


def _give_reference(kept: KeptModel, method: Method, store: FeatureStore, folders: Folders) -> None:
    """The images and sentences that the method distils on, the same as in the run."""
    if not method.reference_names:
        return
    reference, facts = references.load(method.reference_names, store, folders, kept.run.synthetic)
    if kept.made_from.get("reference") not in (None, facts):
        raise BenchError(f"{kept.run.method}: its reference data are others now than the model was trained with")
    method.use_reference(reference)


def _teach(kept: KeptModel, method: Method, task: Task) -> None:
    method.train()
    try:
        method.grow(task.for_training())
        method.learn(task.for_training())
    except RunFailure as error:
        raise BenchError(f"{kept.run.method}: {error}") from error
    method.eval()


def _evaluated(method: Method, task: Task, test: Split) -> tuple[float, int]:
    """(accuracy on the task's test images, number of classes that competed), as a run would score it."""
    classes = list(task.classes) if method.scenario.task_known else list(range(len(method.scenario.class_names)))
    nothing = test.chosen(torch.arange(0))
    [*_, scores] = evaluation.scores(method, [*[nothing] * task.index, test], task.index + 1, classes)
    best = torch.tensor(classes)[scores.argmax(dim=-1)]
    return float((best == test.labels).float().mean()), len(classes)


def _report(learned: Learned, run: Path, folder: Path) -> dict:
    return {**dataclasses.asdict(learned), "folder": str(learned.folder), "from": str(run), "images": str(folder)}
