"""What every method must keep to, tried by `bench check` on a small stream of the mini world.

A plug-in that passes can be compared with the built-ins: it is deterministic, resumable, touches no test data, leaves
the shared backbone alone and scores any list of classes.
"""

import dataclasses
import functools
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.checks import continuing, needs
from bench.checks.promises import Result, all_tried
from bench.clip import backbone as backbones
from bench.clip.backbone import Backbone
from bench.images.dataset import Folders, ImageSource
from bench.learning.method import Method
from bench.learning.stated import UNSTATED, claim, is_stated, needs_of
from bench.streams import reference
from bench.streams.features import FeatureStore, Layer
from bench.streams.opening import open_stream
from bench.streams.protocol import Protocol, TaskPlan
from bench.streams.scenario import Scenario
from bench.streams.stream import Stream, Task
from bench.system import registry
from bench.system.randomness import Draws

TASKS, CLASSES_PER_TASK, TRAIN_IMAGES, TEST_IMAGES = 3, 3, 8, 4
LIKE = "mini60-6x10"  # whose recipe the method is run with


class WatchedStore(FeatureStore):
    """A feature store that notes which images it is asked for, while somebody wants to know."""

    def __init__(self, backbone: Backbone, root: Path):
        super().__init__(backbone, root)
        self.watching = False
        self.asked: set[str] = set()  # digests of image sources

    def features(self, source: ImageSource, view: str = "plain", layer: Layer = "projected") -> np.ndarray:
        if self.watching:
            self.asked.add(source.digest)
        return super().features(source, view, layer)


@dataclass
class Trial:
    """A method class with everything it needs to be tried."""

    name: str
    method: type[Method]
    stream: Stream
    store: WatchedStore
    folders: Folders
    states: list[dict[str, torch.Tensor]] = field(default_factory=list)  # after each task
    weights_before: str = ""  # digest of the backbone

    def fresh(self, scenario: Scenario | None = None) -> Method:
        """Before its first task; scenario: of another stream than the trial's."""
        settings = self.method.settings_for(LIKE, self.method.quick)
        scenario = scenario or self.stream.scenario
        method = self.method(settings, self.store.backbone, scenario, Draws(LIKE, self.name, 0)).eval()
        if method.reference_names:
            loaded, _ = reference.load(method.reference_names, self.store, self.folders)
            method.use_reference(loaded)
        return method

    @property
    def settings(self) -> Any:
        return self.method.settings_for(LIKE, self.method.quick)

    def curriculum(self) -> list[Task]:
        """What `learn` is called with: every task without its test images, or all at once for a joint method."""
        return [self.stream.joined()] if self.method.joint else [task.for_training() for task in self.stream.tasks]

    @functools.cached_property
    def trained(self) -> Method:
        """The method after the whole stream, learned once; `states` and the store note what happened on the way."""
        method = self.fresh()
        self.store.watching = True
        try:
            for task in self.curriculum():
                teach(method, task)
                self.states.append({name: value.clone() for name, value in method.state_dict().items()})
        finally:
            self.store.watching = False
        return method

    def batch(self, size: int = 64) -> torch.Tensor:
        """Test images of all tasks, as the method wants them."""
        parts = [next(task.test.batches(self.method.inputs, size)) for task in self.stream.tasks]
        return torch.cat(parts)

    def scores(self, method: Method, classes: Sequence[int] | None = None) -> torch.Tensor:
        every = range(len(self.stream.scenario.class_names))
        with torch.no_grad():
            return method.logits(self.batch(), list(every if classes is None else classes))


def teach(method: Method, task: Task) -> None:
    method.train()
    method.grow(task)
    method.learn(task)
    method.eval()


def check(name: str, folders: Folders) -> list[Result]:
    """Try every promise on the method of that name, or in that file."""
    method = registry.load("method", name)
    backbone = backbones.load("mini", None, "cpu")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = WatchedStore(backbone, Path(folder))
        stream = _small_stream(method, store, folders)
        trial = Trial(registry.name_of(name), method, stream, store, folders, weights_before=_weights_digest(backbone.clip))
        return all_tried(PROMISES, trial, registry.place_of_method(name))


def _small_stream(method: type[Method], store: FeatureStore, folders: Folders) -> Stream:
    def tasks(order_seed: int) -> list[TaskPlan]:
        labels = np.arange(60)[::3][: TASKS * CLASSES_PER_TASK].reshape(TASKS, CLASSES_PER_TASK)  # of several domains
        return [TaskPlan(f"task {t}", "mini60", tuple(int(k) for k in row)) for t, row in enumerate(labels)]

    protocol = Protocol("contract", "1", method.scenarios[0], "the stream of bench check", tasks, fixed_order=True)
    return open_stream(protocol, 0, store, folders, TRAIN_IMAGES, TEST_IMAGES)


# -- the promises: each returns a complaint, or "" when kept ----------------------------------------------------


def describes_itself(trial: Trial) -> str:
    """says what it is: docstring, paper, what is trained, help for every hyper-parameter"""
    missing = [what for what in ("paper", "trains") if claim(trial.method, what) == UNSTATED]
    if not (trial.method.__doc__ or "").strip():
        missing.append("docstring")
    fields = dataclasses.fields(trial.method.Settings)
    missing += [f"help of {field.name}" for field in fields if not field.metadata.get("help")]
    return f"missing: {', '.join(missing)}" if missing else ""


def scores_have_the_right_shape(trial: Trial) -> str:
    """scores a batch for every class: one finite number per image and class"""
    scores = trial.scores(trial.trained)
    wanted = (len(trial.batch()), len(trial.stream.scenario.class_names))
    if tuple(scores.shape) != wanted:
        return f"shape {tuple(scores.shape)}, not {wanted}"
    return "" if bool(torch.isfinite(scores).all()) else "some scores are not finite"


def class_lists_are_free(trial: Trial) -> str:
    """scores any list of classes, in any order (alike in each, or it says that they are not: scores_depend_on_list)"""
    method = trial.trained
    every = list(range(len(trial.stream.scenario.class_names)))
    chosen = every[::-1] if method.scores_depend_on_list else every[::-2]
    return _differ(trial.scores(method, chosen), trial.scores(method, every)[:, chosen], "scores depend on the list")


def batches_are_free(trial: Trial) -> str:
    """a score does not depend on the other images of the batch (or it says how test batches are composed: test_batches)"""
    method, batch = trial.trained, trial.batch()
    if method.test_batches:
        return ""
    classes = list(range(len(trial.stream.scenario.class_names)))
    with torch.no_grad():
        together = method.logits(batch, classes)
        alone = torch.cat([method.logits(batch[i : i + 1], classes) for i in range(len(batch))])
    return _differ(alone, together, "scores depend on the batch")


def unseen_classes(trial: Trial) -> str:
    """scores classes that it has not learned (or says that it cannot: zero_shot = False)"""
    if not trial.method.zero_shot:
        try:
            trial.fresh().logits(trial.batch(), [0])
        except (ValueError, LookupError):
            return ""
        return "zero_shot is False, yet an unlearned class was scored"
    before = trial.scores(trial.fresh())
    return "" if bool(torch.isfinite(before).all()) else "scores before the first task are not finite"


def same_seed_same_numbers(trial: Trial) -> str:
    """the same seed gives the same numbers, whatever else has used torch's random numbers"""
    first, again = trial.scores(trial.trained), trial.fresh()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for task in trial.curriculum():
            teach(again, task)
    second = trial.scores(again)
    return "" if torch.equal(first, second) else _differ(first, second, "two runs differ") or "two runs differ in the last bits"


def resume_changes_nothing(trial: Trial) -> str:
    """resumed from its state after any task, it ends with the same numbers"""
    tasks = trial.curriculum()
    whole = trial.scores(trial.trained)
    for done, state in enumerate(trial.states, start=1):
        resumed = trial.fresh()
        for task in tasks[:done]:
            resumed.grow(task)
        resumed.load_state_dict(state)
        resumed.eval()
        for task in tasks[done:]:
            teach(resumed, task)
        if not torch.equal(trial.scores(resumed), whole):
            return f"resumed after task {done} it ends elsewhere: some state is not a parameter or buffer"
    return ""


def learns_one_more_task(trial: Trial) -> str:
    """kept, it can learn a task that its stream did not have, as a run that knew of it (or says that it does not)"""
    if trial.method.joint or trial.method.cannot_continue:
        return ""
    tasks, whole = trial.curriculum(), trial.trained
    kept = trial.fresh(continuing.without_last_task(trial.stream.scenario))
    for task in tasks[:-1]:
        teach(kept, task)
    method = continuing.longer(trial.fresh, trial.stream.scenario, tasks[:-1], kept)
    if trial.method.zero_shot and trial.method.continues_as_one_run and not trial.method.cannot_add_names:
        before = trial.fresh()
        for task in tasks[:-1]:
            before.grow(task)
        before.load_state_dict(trial.states[-2])
        if not torch.equal(trial.scores(method), trial.scores(before.eval())):
            return "it scores new classes otherwise than if its stream had had them: define classes_added(new)"
    teach(method, tasks[-1])
    if not trial.method.continues_as_one_run:
        return "" if bool(torch.isfinite(trial.scores(method)).all()) else "its scores are not finite then"
    parts = continuing.differing(method, whole)
    same = not parts and torch.equal(trial.scores(method), trial.scores(whole))
    return "" if same else f"it ends elsewhere ({', '.join(parts[:3])}): say continues_as_one_run = False"


def test_data_is_not_touched(trial: Trial) -> str:
    """learns without touching a test image"""
    tested = {source.digest for task in trial.stream.tasks for source, _ in task.test.pieces}
    _ = trial.trained  # its training tasks are sealed: reaching for a test split raises
    return "features of test images were used in training" if trial.store.asked & tested else ""


def backbone_is_left_alone(trial: Trial) -> str:
    """leaves the shared backbone and its input as they were"""
    batch = trial.batch()
    copy = batch.clone()
    with torch.no_grad():
        trial.trained.logits(batch, [0])
    if _weights_digest(trial.store.backbone.clip) != trial.weights_before:
        return "the backbone's weights have changed: train a copy (backbone.trainable_copy())"
    return "" if torch.equal(batch, copy) else "logits() has changed its input"


def needs_are_true(trial: Trial) -> str:
    """says what it needs of CLIP: on embeddings of that alone it gives the same scores (or it says nothing: needs)"""
    if not is_stated(trial.method, "needs"):
        return ""  # it is taken to need everything

    def learned(stream: Stream) -> torch.Tensor:
        store = WatchedStore(stream.tasks[0].train.store.backbone, trial.store.root)
        again = dataclasses.replace(trial, stream=stream, store=store, states=[])
        method = again.fresh()
        for task in again.curriculum():
            teach(method, task)
        return again.scores(method)

    stated = needs_of(trial.method, trial.settings)
    fared = needs.without_towers(trial.stream, learned)
    if found := needs.complaint(stated, fared):
        return found
    return "" if fared.scores is None else _differ(fared.scores, trial.scores(trial.trained), "on embeddings scores differ")


PROMISES: list[Callable[[Trial], str]] = [
    describes_itself,
    scores_have_the_right_shape,
    class_lists_are_free,
    batches_are_free,
    unseen_classes,
    same_seed_same_numbers,
    resume_changes_nothing,
    learns_one_more_task,
    test_data_is_not_touched,
    backbone_is_left_alone,
    needs_are_true,
]


def _differ(found: torch.Tensor, wanted: torch.Tensor, complaint: str) -> str:
    """The complaint if two score tables differ by more than rounding."""
    worst = float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
    return f"{complaint} (by {worst:.1e} of the largest score)" if worst > 1e-4 else ""


def _weights_digest(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
