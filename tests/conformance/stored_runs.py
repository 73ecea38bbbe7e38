"""Runs of ZSCL's programs, replayed: the stored batches and draws in, losses, gradients and weights out."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from bench.clip.backbone import Backbone
from bench.images.dataset import ImageSource
from bench.streams.features import FeatureStore
from bench.streams.reference import Reference
from bench.streams.stream import Scenario, SealedSplit, Split, Task
from bench.system.randomness import Draws
from methods.fine_tuning import distilled_finetune
from methods.fine_tuning.finetune import FineTune
from methods.fine_tuning.lwf import LwF, LwFVR
from methods.fine_tuning.weight_methods import WiSEFT
from methods.fine_tuning.zscl import ZSCL


class World:
    """The fixture's images and classes as a stream of the given tasks, in the given precision.

    `never_learned` are classes that the stored run knows of, behind those of the tasks.
    """

    def __init__(self, tiny, folder, precision, kind, tasks, templates, never_learned: Sequence[int] = ()):
        self.source: ImageSource = tiny.source
        self.backbone = InPrecision(tiny.backbone, getattr(torch, precision))
        self.store = FeatureStore(self.backbone, folder)
        order = [*(c for classes in tasks for c in classes), *never_learned]
        self.position = {c: position for position, c in enumerate(order)}
        self.labels = tiny.labels
        self.classes = [tuple(self.position[c] for c in classes) for classes in tasks]
        names = tuple(tiny.class_names[c] for c in order)
        owners = [index for index, classes in enumerate(tasks) for _ in classes]
        owners += [len(tasks) - 1] * len(never_learned)
        self.scenario = Scenario(kind, names, (tuple(templates),) * len(order), tuple(owners))

    def positions(self, rows: torch.Tensor) -> torch.Tensor:
        """Learning positions of the classes of these images, which the stream has to have; others are `unlabelled`."""
        return torch.tensor([self.position[int(c)] for c in self.labels[rows]])

    def split(self, rows: torch.Tensor, labels: torch.Tensor | None = None) -> Split:
        return Split([(self.source, rows.numpy())], self.positions(rows) if labels is None else labels, self.store)

    def unlabelled(self, rows: np.ndarray | None = None) -> Split:
        """Images to be scored only (all by default), also of classes that are not in the stream."""
        rows = torch.arange(len(self.labels)) if rows is None else torch.from_numpy(rows).flatten()
        return self.split(rows, torch.zeros(len(rows), dtype=torch.long))

    def task(self, index: int, rows: torch.Tensor, labels: torch.Tensor) -> Task:
        """A task from its stored batches, (batches, batch size) each, laid out one after the other."""
        return Task(index, f"task {index}", self.classes[index], self.split(rows.flatten(), labels.flatten()), SealedSplit())


class InPrecision(Backbone):
    """A backbone with its weights and pixels in another precision; images are prepared in the usual one."""

    def __init__(self, tiny: Backbone, dtype: torch.dtype):
        clip = copy.deepcopy(tiny.clip).to(dtype)
        super().__init__(tiny.name, tiny.pretrained, clip, tiny.tokenizer, tiny.transform, tiny.digest, "cpu")
        self.dtype = dtype

    def preprocess(self, images, view="plain"):
        return super().preprocess(images, view).to(self.dtype)


class StoredDraws(Draws):
    """Images lie in the stored order, which every pass repeats; what else a run has drawn is set by the test."""

    def __init__(self) -> None:
        super().__init__("conformance", "stored", 0)
        self.batch_rows: dict[int, torch.Tensor] = {}  # task -> positions among its images, where these lie in another order
        self.distillation_rows: dict[int, torch.Tensor] = {}  # task -> positions among its distillation images
        self.random_tokens: dict[int, torch.Tensor] = {}  # task -> (sentences, tokens)

    def permutation(self, n, *purpose):
        what, task, _ = purpose
        if what == "distillation order" and task in self.distillation_rows:
            return self.distillation_rows[task]
        if what == "batch order" and task in self.batch_rows:
            return self.batch_rows[task]
        assert what in ("batch order", "distillation order")
        return torch.arange(n)

    def integers(self, high, shape, *purpose):
        tokens = self.random_tokens[purpose[1]]
        assert tuple(shape) == tuple(tokens.shape) and int(tokens.max()) < high
        return tokens


def method_of_run(run: Mapping, params: Mapping, world: World, draws: StoredDraws, length: Mapping) -> FineTune:
    """The product's method with the settings of a stored run, told from what params.json says of it."""
    optimiser = params["optimiser"]
    settings = {
        "lr": optimiser["lr"],
        "warmup": params["warmup"],
        "batch_size": params["batch_size"],
        "label_smoothing": params["label_smoothing"],
        "beta1": optimiser["betas"][0],
        "beta2": optimiser["betas"][1],
        "eps": optimiser["eps"],
        "weight_decay": optimiser["weight_decay"],
        "crop_scale": 1.0,  # the stored images went through the model as they are
        **length,
    }
    if "saved" in run:
        return _merged(run, settings, world, draws)
    settings |= {"l2_weight": run["l2_lambda"], "average_every": run["we_every"] or 0}
    if not (run["image_kd"] or run["text_kd"]):
        return FineTune(FineTune.Settings(**settings), world.backbone, world.scenario, draws)
    settings |= {
        "image_weight": params["image_kd_weight"] if run["image_kd"] else 0.0,
        "text_weight": params["text_kd_weight"] if run["text_kd"] else 0.0,
        "temperature": params["distillation_temperature"],
    }
    if "distill" in run["kd_images"]:
        settings["teacher_is_student"] = "shares" in run["teacher"]
        if run["sentences"] == "random_token_ids":
            random = params["random_sentences"]
            settings |= {"sentences": random["n"], "sentence_tokens": random["n_tokens"]}
            return LwFVR(LwFVR.Settings(**settings), world.backbone, world.scenario, draws)
        return LwF(LwF.Settings(**settings), world.backbone, world.scenario, draws)
    settings["sentence_template"] = run["sentences"].replace("{caption}", "{}")
    settings["teacher"] = {"fixture": "initial", "weights at task start": "previous"}.get(run["teacher"], "merged")
    if settings["teacher"] == "merged":
        settings["teacher_alpha"] = params["ref_wise_alpha"]
    return ZSCL(ZSCL.Settings(**settings), world.backbone, world.scenario, draws)


def _merged(run: Mapping, settings: dict, world: World, draws: StoredDraws) -> FineTune:
    if "we_every" in run:
        settings |= {"average_every": run["we_every"], "average_pull": run["alpha"], "merge_alpha": 1.0}
    else:
        other = "zero-shot" if "fixture" in run["saved"] else "task-start"
        settings |= {"merge_alpha": run["alpha"], "merge_with": other}
    return WiSEFT(WiSEFT.Settings(**settings), world.backbone, world.scenario, draws)


def give_reference(method: FineTune, world: World, rows: np.ndarray, captions: Sequence[str]) -> None:
    """The stored reference batches, one after the other, and the captions."""
    if method.reference_names:
        method.use_reference(Reference(world.unlabelled(rows), tuple(captions)))


def places_in(rows: np.ndarray, wanted: np.ndarray) -> torch.Tensor:
    """Where each wanted image stands in a list of images."""
    place = {int(row): k for k, row in reversed(list(enumerate(rows.flatten())))}
    return torch.tensor([place[int(row)] for row in wanted.flatten()])


class Record:
    """Notes what each update computes, until it is taken."""

    def __init__(self, method: FineTune, watched: Sequence[str], monkeypatch):
        self.watched = watched
        self.clear()
        self._note_result(monkeypatch, method, "loss", "ce")
        self._note_result(monkeypatch, method, "weight_distance", "l2")
        self._note_result(monkeypatch, method, "training_logits", "logits")
        step = torch.optim.AdamW.step

        def recorded_step(optimiser, *rest):
            (group,) = optimiser.param_groups
            self.note("lr", torch.tensor(group["lr"], dtype=torch.float64))
            self.note("grad_norm", torch.stack([weights.grad.norm() for weights in group["params"]]).norm())
            step(optimiser, *rest)
            if self.watched:
                weights = dict(method.clip.named_parameters())
                self.note("watched_after_step", torch.stack([weights[name] for name in self.watched]))

        monkeypatch.setattr(torch.optim.AdamW, "step", recorded_step)
        if hasattr(method, "distillation_losses"):
            self._note_distillation(monkeypatch, method)

    def _note_result(self, monkeypatch, method, function: str, name: str) -> None:
        original = getattr(method, function)

        def recorded(*arguments):
            value = original(*arguments)
            self.note(name, value)
            return value

        monkeypatch.setattr(method, function, recorded)

    def _note_distillation(self, monkeypatch, method) -> None:
        losses, distillation = method.distillation_losses, distilled_finetune.distillation

        def recorded_losses(rows, pixels):
            image_loss, text_loss = losses(rows, pixels)
            self.note("img_distill", image_loss)
            self.note("txt_distill", text_loss)
            return image_loss, text_loss

        def recorded_distillation(teacher, student, temperature):
            self.gaps.append((teacher - student).detach().abs().max())
            return distillation(teacher, student, temperature)

        monkeypatch.setattr(method, "distillation_losses", recorded_losses)
        monkeypatch.setattr(distilled_finetune, "distillation", recorded_distillation)

    def note(self, name: str, value: torch.Tensor) -> None:
        self.notes.setdefault(name, []).append(value.detach().clone())

    def clear(self) -> None:
        self.notes: dict[str, list[torch.Tensor]] = {}
        self.gaps: list[torch.Tensor] = []

    def take(self) -> dict[str, torch.Tensor]:
        """Everything noted since the last call: one row per update, and the first update's logits."""
        first_logits = self.notes.pop("logits")[0]
        taken = {name: torch.stack(values) for name, values in self.notes.items()}
        if self.gaps:  # rows are images or sentences: the gap is the same, and each update has one or two of them
            taken["max_teacher_student_logit_gap"] = torch.stack(self.gaps).reshape(len(taken["ce"]), -1).amax(dim=1)
        self.clear()
        return taken | {"first_logits": first_logits}


def snapshot(method: FineTune) -> dict[str, torch.Tensor]:
    """The trained CLIP's weights by name."""
    return {name: weights.detach().clone() for name, weights in method.clip.named_parameters()}
