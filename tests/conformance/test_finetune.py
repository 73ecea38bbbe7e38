"""Fine-tuning against runs of ZSCL's programs without their extra losses: the same batches, number by number."""

import copy
from fnmatch import fnmatchcase

import pytest
import torch

from bench.backbone import Backbone
from bench.features import FeatureStore
from bench.randomness import Draws
from bench.stream import Scenario, SealedSplit, Split, Task
from methods.finetune import FineTune

RUN = "finetune"
PRECISIONS = pytest.mark.parametrize("precision", ["float64", "float32"])


@PRECISIONS
@pytest.mark.vectors("zscl", "zscl.npz")
def test_task_incremental_run(vectors, tiny, tmp_path, monkeypatch, precision):
    skip_without_run(vectors)
    params = vectors.params
    templates = list(params["templates"])
    templates.insert(0, templates.pop(params["train_template_index"]))  # the harness trains with the first
    world = World(tiny, tmp_path, precision, "task-incremental", params["tasks"], templates)
    method = world.method(params, batch_size=params["batch_size"], iterations=params["iterations"])
    record = Record(method, params["watched_tensors"], monkeypatch)
    param_names = [str(name) for name in vectors["param_names"]]
    # the authors evaluate with a literal factor, we with exp(logit scale); in double precision they differ in digit 8
    scale = params["temperature"] / world.backbone.logit_scale

    actual = {}
    for index, classes in enumerate(world.classes):
        place = f"{RUN}/task{index + 1}"
        labels = torch.from_numpy(vectors[f"batch/task{index + 1}_train_label"]) + classes[0]
        start = snapshot(method)
        method.learn(world.task(index, torch.from_numpy(vectors[f"batch/task{index + 1}_train_idx"]), labels))
        saved = snapshot(method)
        actual |= {f"{place}/{name}": values for name, values in record.take().items()}
        actual[f"{place}/watched_start"] = torch.stack([start[name] for name in params["watched_tensors"]])
        actual[f"{place}/watched_saved"] = torch.stack([saved[name] for name in params["watched_tensors"]])
        actual[f"{place}/param_delta_norm"] = torch.stack([(saved[name] - start[name]).norm() for name in param_names])
        for other, candidates in enumerate(world.classes):
            rows = torch.from_numpy(vectors[f"eval/task{other + 1}_test_idx"])
            logits = scale * method.logits(world.split(rows).pixels(), candidates)
            correct = logits.argmax(dim=-1) + candidates[0] == world.positions(rows)
            actual[f"{place}/eval_logits_task{other + 1}"] = logits
            actual[f"{place}/eval_acc_task{other + 1}"] = 100 * correct.double().mean()
    check_this_run(vectors, actual, precision)


@PRECISIONS
@pytest.mark.vectors("zscl", "zscl_cil.npz")
def test_class_incremental_run(vectors, tiny, tmp_path, monkeypatch, precision):
    skip_without_run(vectors)
    params, tasks = vectors.params, vectors["tasks"].tolist()
    world = World(tiny, tmp_path, precision, "class-incremental", tasks, [params["template"]])
    method = world.method(params, batch_size=params["batch_size"], epochs=1)
    record = Record(method, [], monkeypatch)
    test = world.split(torch.from_numpy(vectors["test_idx"]))

    actual = {}
    for index, classes in enumerate(world.classes):
        positions = torch.from_numpy(vectors[f"task{index + 1}_train_position"])
        method.learn(world.task(index, torch.from_numpy(vectors[f"task{index + 1}_train_idx"]), positions))
        actual |= {f"{RUN}/task{index + 1}/{name}": values for name, values in record.take().items()}
        logits = method.logits(test.pixels(), range(classes[-1] + 1))
        actual[f"{RUN}/task{index + 1}/eval_probs_seen"] = logits.softmax(dim=-1)
    check_this_run(vectors, actual, precision)


def skip_without_run(vectors) -> None:
    if RUN not in vectors.params["runs"]:
        pytest.skip(f"{vectors.path} has no run {RUN!r}")


def check_this_run(vectors, actual: dict, precision: str) -> None:
    """The other runs of the file have losses that fine-tuning lacks."""
    vectors.arrays = {name: array for name, array in vectors.arrays.items() if fnmatchcase(name, f"{RUN}/*")}
    vectors.check(actual, dtype=precision)


# -- the stored run, in the product's terms ---------------------------------------------------------------------


class World:
    """The fixture's images and classes as a stream of the given tasks, in the given precision."""

    def __init__(self, tiny, folder, precision, kind, tasks, templates):
        self.source = tiny.source
        self.backbone = InPrecision(tiny.backbone, getattr(torch, precision))
        self.store = FeatureStore(self.backbone, folder)
        order = [c for classes in tasks for c in classes]
        self.position = {c: position for position, c in enumerate(order)}
        self.labels = tiny.labels
        self.classes = [tuple(self.position[c] for c in classes) for classes in tasks]
        names = tuple(tiny.class_names[c] for c in order)
        owners = tuple(index for index, classes in enumerate(tasks) for _ in classes)
        self.scenario = Scenario(kind, names, (tuple(templates),) * len(order), owners)

    def positions(self, rows: torch.Tensor) -> torch.Tensor:
        """Learning positions of the classes of these images."""
        return torch.tensor([self.position[int(c)] for c in self.labels[rows]])

    def split(self, rows: torch.Tensor, labels: torch.Tensor | None = None) -> Split:
        return Split([(self.source, rows.numpy())], self.positions(rows) if labels is None else labels, self.store)

    def task(self, index: int, rows: torch.Tensor, labels: torch.Tensor) -> Task:
        """A task from its stored batches, (batches, batch size) each, laid out one after the other."""
        return Task(index, f"task {index}", self.classes[index], self.split(rows.flatten(), labels.flatten()), SealedSplit())

    def method(self, params: dict, **length) -> FineTune:
        optimiser = params["optimiser"]
        settings = FineTune.Settings(
            lr=optimiser["lr"],
            warmup=params["warmup"],
            label_smoothing=params["label_smoothing"],
            beta1=optimiser["betas"][0],
            beta2=optimiser["betas"][1],
            eps=optimiser["eps"],
            weight_decay=optimiser["weight_decay"],
            **length,
        )
        return FineTune(settings, self.backbone, self.scenario, StoredOrder("conformance", "finetune", 0))


class InPrecision(Backbone):
    """A backbone with its weights and pixels in another precision; images are prepared in the usual one."""

    def __init__(self, tiny: Backbone, dtype: torch.dtype):
        clip = copy.deepcopy(tiny.clip).to(dtype)
        super().__init__(tiny.name, tiny.pretrained, clip, tiny.tokenizer, tiny.transform, tiny.digest, "cpu")
        self.dtype = dtype

    def preprocess(self, images, view="plain"):
        return super().preprocess(images, view).to(self.dtype)


class StoredOrder(Draws):
    """The images already lie in the stored order, which every pass repeats."""

    def permutation(self, n, *purpose):
        assert purpose[0] == "batch order"
        return torch.arange(n)


class Record:
    """Notes what each update computes, until it is taken."""

    def __init__(self, method: FineTune, watched: list[str], monkeypatch):
        self.watched = watched
        self.clear()
        loss, training_logits, step = method.loss, method.training_logits, torch.optim.AdamW.step

        def recorded_loss(*arguments):
            value = loss(*arguments)
            self.notes["ce"].append(value.detach())
            return value

        def recorded_logits(*arguments):
            value = training_logits(*arguments)
            self.logits.append(value.detach())
            return value

        def recorded_step(optimiser, *rest):
            (group,) = optimiser.param_groups
            self.notes["lr"].append(torch.tensor(group["lr"], dtype=torch.float64))
            self.notes["grad_norm"].append(torch.stack([weights.grad.norm() for weights in group["params"]]).norm())
            step(optimiser, *rest)
            if self.watched:
                weights = snapshot(method)
                self.notes["watched_after_step"].append(torch.stack([weights[name] for name in self.watched]))

        monkeypatch.setattr(method, "loss", recorded_loss)
        monkeypatch.setattr(method, "training_logits", recorded_logits)
        monkeypatch.setattr(torch.optim.AdamW, "step", recorded_step)

    def clear(self) -> None:
        self.notes = {name: [] for name in ("ce", "lr", "grad_norm", "watched_after_step")}
        self.logits: list[torch.Tensor] = []

    def take(self) -> dict[str, torch.Tensor]:
        """Everything noted since the last call: one row per update, and the first update's logits."""
        taken = {name: torch.stack(values) for name, values in self.notes.items() if values}
        taken["first_logits"] = self.logits[0]
        self.clear()
        return taken


def snapshot(method: FineTune) -> dict[str, torch.Tensor]:
    """The trained CLIP's weights by name."""
    return {name: weights.detach().clone() for name, weights in method.clip.named_parameters()}
