"""CoLeCLIP against its authors' whole run: tasks that share names, both halves of their training, scores of every test set."""

from dataclasses import replace

import pytest
import torch

from bench.system.randomness import Draws
from methods.coleclip import coleclip
from methods.coleclip.coleclip import CoLeCLIP, TaskTraining
from methods.coleclip.image_prompts import prompted_images
from tests.conformance.image_streams import PRECISIONS
from tests.conformance.stored_runs import World

PLAIN_ADAM = {"name": "Adam", "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "schedule": "constant"}
LORA = ("k_A", "v_A", "k_B", "v_B")


class StoredDraws(Draws):
    """Images lie in the order of the first pass, in which later passes find theirs; prompts and LoRA are those of the run."""

    def __init__(self, vectors):
        super().__init__("conformance", "coleclip", 0)
        self.vectors = vectors

    def permutation(self, n, *purpose):
        what, task, epoch = purpose
        orders = self.vectors[f"task{task}/train_order"]
        place = {int(row): k for k, row in enumerate(orders[0])}
        assert what == "batch order" and len(place) == n
        return torch.tensor([place[int(row)] for row in orders[epoch]])

    def uniform(self, shape, *purpose):
        if purpose == ("prompts",):
            return torch.from_numpy(self.vectors["prompt0"]).double() / coleclip.PROMPT_START
        what, task, which = purpose
        stored = torch.from_numpy(self.vectors[f"task{task}/lora_A0"][:, ("keys", "values").index(which)]).double()
        assert what == "lora" and stored.shape == shape
        return (stored * shape[-1] ** 0.5 + 1) / 2  # the draw from which it was made


class Record:
    """Notes what every update of a task computes, while `monkeypatch` holds."""

    def __init__(self, method: CoLeCLIP, index: int, monkeypatch):
        self.method, self.index = method, index
        self.losses, self.stages, self.updates = [], [], []
        make, compute, adam_step = TaskTraining.__init__, TaskTraining.loss, torch.optim.Adam.step

        def made(training, *arguments):
            make(training, *arguments)
            self.training = training
            self.start = method.vocabulary[training.entries].clone()

        def computed(training, pixels, labels, against_others):
            loss = compute(training, pixels, labels, against_others)
            self.losses.append(loss.detach())
            self.stages.append(2 if against_others else 1)
            self.entries = method.vocabulary[training.entries].clone()  # just after the forward pass
            return loss

        def recorded_step(optimiser, *rest):
            gradients = {name: weights.grad for name, weights in self.training.named_parameters()}
            self.updates.append(self.by_block(gradients) | {"vocabulary": self.entries})
            adam_step(optimiser, *rest)

        monkeypatch.setattr(TaskTraining, "__init__", made)
        monkeypatch.setattr(TaskTraining, "loss", computed)
        monkeypatch.setattr(torch.optim.Adam, "step", recorded_step)

    def by_block(self, of_parameters: dict[str, torch.Tensor], prompts: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Values of the trained parameters under the stored names; other tasks' prompts are 0 unless they are given."""
        prompts = torch.zeros_like(self.method.prompts) if prompts is None else prompts.clone()
        prompts[self.index] = of_parameters["prompt"].detach()
        found = {"prompt": prompts}
        for i, block in enumerate(self.blocks()):
            found |= {f"block{block}/{name}": of_parameters[f"lora.{name}"][i].detach().clone() for name in LORA}
            found |= {f"block{block}/{name}": of_parameters[name][i].detach().clone() for name in ("k_scale", "v_scale")}
        return found

    def blocks(self):
        return self.method.settings.lora_blocks or range(len(self.method.changed_blocks))

    def arrays(self) -> dict[str, torch.Tensor]:
        marked = {"grad_first": 0, "grad_second": 1}
        if 2 in self.stages:
            marked["grad_stage2"] = self.stages.index(2)
        found = {
            "losses": torch.stack(self.losses), "stages": torch.tensor(self.stages), "start_vocabulary": self.start,
            "tokens": self.training.tokens,
        }  # fmt: skip
        for name, update in marked.items():
            if update < len(self.updates):
                found |= {f"{name}/{what}": value for what, value in self.updates[update].items()}
                found[f"{name}/update"] = torch.tensor(update)
        final = self.by_block(dict(self.training.named_parameters()), self.method.prompts)
        return found | {f"final/{name}": value for name, value in final.items()}


@PRECISIONS
@pytest.mark.vectors("coleclip")
def test_coleclip(vectors, tiny, tmp_path, monkeypatch, precision):
    world, tasks = world_of(vectors, tiny, tmp_path, precision)
    method = CoLeCLIP(settings(vectors.params), world.backbone, world.scenario, StoredDraws(vectors))
    every_id, entry_ids = vectors["class_ids"].tolist(), vectors["unique_class_ids"].tolist()
    assert [tiny.class_names[c] for c in entry_ids] == list(method.names.names)
    actual = {"zero_shot_vocabulary": method.vocabulary.clone()}
    for index, classes in enumerate(tasks):
        place, order = f"task{index}", vectors[f"task{index}/train_order"][0]
        labels = torch.from_numpy(vectors[f"{place}/train_labels"][0]) + classes[0]
        with monkeypatch.context() as patch:
            record = Record(method, index, patch)
            method.learn(world.task(index, torch.from_numpy(order), labels))
        seen = list(dict.fromkeys(every_id[: classes[-1] + 1]))  # a name that comes back counts once
        found = record.arrays()
        found["vocabulary"] = method.vocabulary[: len(seen)].clone()
        found["vocabulary_class_ids"] = found["seen_class_ids"] = torch.tensor(seen)
        for other, own in enumerate(tasks):
            pixels = world.unlabelled(vectors[f"{place}/data{other}/test_idx"]).pixels()
            of_own = [every_id[c] for c in own]
            columns = seen if other <= index else of_own
            found |= {f"data{other}/{name}": value for name, value in scores(method, pixels, columns, of_own, every_id).items()}
        with torch.no_grad():
            pixels = world.unlabelled(vectors[f"{place}/data0/test_idx"]).pixels()
            outputs = prompted_images(world.backbone.clip.visual, pixels, method.prompts[: index + 1])
        found["prompt_features"] = torch.cat([(outputs[:, :-1] + outputs[:, -1:]) / 2, outputs[:, -1:]], dim=1)
        actual |= {f"{place}/{name}": value for name, value in found.items()}
    vectors.check(actual, dtype=precision)


def scores(method: CoLeCLIP, pixels, columns: list[int], own: list[int], every_id: list[int]) -> dict[str, torch.Tensor]:
    """Of a test set among columns (the fixture's classes), of which some are its own."""
    logits = method.logits(pixels, [every_id.index(c) for c in columns])
    places = torch.tensor([columns.index(c) for c in own])
    return {
        "logits": logits, "columns": torch.tensor(columns), "own_columns": places, "prediction_all": logits.argmax(dim=1),
        "prediction_own": logits[:, places].argmax(dim=1),
    }  # fmt: skip


def world_of(vectors, tiny, folder, precision: str) -> tuple[World, list[tuple[int, ...]]]:
    """A stream in which a class of the fixture may come in several tasks, each time as a class of its own."""
    params, sizes = vectors.params, vectors["task_sizes"].tolist()
    ids = vectors["class_ids"].tolist()
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    world = World(tiny, folder, precision, "task-incremental", [ids[end - n : end] for end, n in zip(ends, sizes)], ["{}"])
    world.classes = [tuple(range(end - n, end)) for end, n in zip(ends, sizes)]
    templates = [list(of_task) for of_task in params["templates"]]
    for of_task in templates:
        of_task.insert(0, of_task.pop(params["train_template_index"]))  # the one that trains comes first, as the harness wants it
    of_classes = tuple(tuple(templates[task]) for task in world.scenario.task_of_class)
    world.scenario = replace(world.scenario, templates=of_classes)
    return world, world.classes


def settings(params: dict) -> CoLeCLIP.Settings:
    optimiser = params["optimiser"]
    assert optimiser.items() >= PLAIN_ADAM.items() and params["fresh_optimiser_per_task"] and params["lora_redrawn_per_task"]
    assert not params["drop_last"] and params["augmentation"] == "none"
    return CoLeCLIP.Settings(
        lr=optimiser["lr"], batch_size=params["batch_size"], epochs=params["n_epochs"],
        prompt_tokens=params["prompts_per_task"], rank=params["lora_rank"], lora_blocks=tuple(params["lora_blocks"]),
        momentum=params["vocabulary_momentum"], open_from=params["stage_step"], quantile=params["quantile"], crop_scale=1.0,
    )  # fmt: skip
