"""AttriCLIP against the released classifier, with the text tower frozen and with it tuned: the same draws, number by number."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.streams.stream import Scenario, SealedSplit, Task
from bench.system.randomness import Draws
from methods.text_prompts.attriclip import AttriCLIP, AttriCLIPSettings
from methods.text_prompts.prompt_bank import DEVIATION


class StoredDraws(Draws):
    """Hands out the stored bank, and the rows in the order in which they are stored."""

    def __init__(self, keys: torch.Tensor, prompts: torch.Tensor):
        super().__init__("vectors", "attriclip", 0)
        self.stored = {"keys": keys, "prompts": prompts}

    def normal(self, shape, *purpose):
        stored = self.stored[purpose[-1]] / DEVIATION  # the bank scales what it draws
        assert stored.shape == tuple(shape)
        return stored

    def permutation(self, n, *purpose):
        return torch.arange(n)


class FirstSteps:
    """Wraps `loss` and `fit`: of every task, what the first batch gives before any update, and all rates."""

    def __init__(self, method: AttriCLIP):
        self.method, self.loss, self.fit = method, method.loss, method.fit
        method.loss, method.fit = self.record_first, self.record_rates
        self.first, self.rates = {}, []

    def record_rates(self, *arguments, **options):
        self.first = {}
        self.rates = self.fit(*arguments, **options)
        return self.rates

    def record_first(self, text, images, columns, *purpose):
        total = self.loss(text, images, columns, *purpose)
        if self.first:
            return total
        method, features = self.method, F.normalize(images, dim=-1)
        choice = method.bank.choose(features)
        logits = method.training_logits(text, features, choice)
        ce, key, likeness = method.losses(logits, columns, features, choice)
        tuned = [p for name, p in method.named_parameters() if name.startswith("tower.") and p.requires_grad]
        own = [method.bank.keys, method.bank.prompts]
        gradients = torch.autograd.grad(total, own + tuned, retain_graph=True, allow_unused=True)
        self.first = {
            "tokens": text.tokens,
            "similarity": method.bank.similarity(features),
            "selected": choice,
            "logits": logits,
            "ce": ce,
            "loss_key": key,
            "loss_ortho": likeness,
            "total": total,
            "grad_key": gradients[0],
            "grad_prompt": gradients[1],
            "text_encoder_grad_norm": torch.stack([torch.zeros(()), *(g.norm() for g in gradients[2:] if g is not None)]).norm(),
        }
        return total


def settings_of(params) -> AttriCLIPSettings:
    optimiser, weights = params["optimiser"], params["loss_weights"]
    assert weights["ce"] == 1 and params["n_placeholders"] == params["top_k"] * params["n_ctx"]
    lr = {"lr": optimiser["lr"], "batch_size": params["batch_size"]}
    return AttriCLIPSettings(
        bank_size=params["n_prompts"],
        prompt_length=params["n_ctx"],
        chosen=params["top_k"],
        placeholder=params["placeholder"],
        key_weight=weights["key"],
        prompt_weight=weights["ortho"],
        text_tower="frozen" if params["clip_frozen"] else "trained_per_task",
        label_space="present" if "own" in params["train_label_space"] else "seen",
        epochs=params["n_epochs"],
        batch_size=params["batch_size"],
        learning_rate=eval(params.get("lr_scale", "lr"), {"__builtins__": {}}, lr),
        momentum=optimiser["momentum"],
        weight_decay=optimiser["weight_decay"],
        cosine_floor=params["floor_factor"],
        mirrored_view=False,
    )


@pytest.mark.vectors("attriclip")
def test_a_continual_run(vectors, tiny):
    tasks = vectors.tasks
    order = [c for classes in tasks for c in classes]
    position = torch.full((len(tiny.class_names),), -1)
    position[torch.tensor(order)] = torch.arange(len(order))
    names = tuple(tiny.class_names[c] for c in order)
    sizes = [len(classes) for classes in tasks]
    owners = tuple(np.repeat(range(len(sizes)), sizes).tolist())
    scenario = Scenario("class-incremental", names, (("{}",),) * len(names), owners)
    draws = StoredDraws(vectors.tensor("text_key0"), vectors.tensor("text_prompt0"))
    method = AttriCLIP(settings_of(vectors.params), tiny.backbone, scenario, draws)
    steps = FirstSteps(method)
    actual = {}
    for index in range(len(sizes)):
        name, rows = f"task{index + 1}", torch.from_numpy(vectors[f"task{index + 1}_order"])
        own = tuple(range(sum(sizes[:index]), sum(sizes[: index + 1])))
        train = tiny.split(rows, position[tiny.labels[rows]])
        method.learn(Task(index, name, own, train, SealedSplit()))
        actual |= {f"{name}_b0_{key}": value for key, value in steps.first.items()}
        actual[f"{name}_lrs"] = torch.tensor(steps.rates)
        actual[f"{name}_text_key"] = method.bank.keys.detach().clone()
        actual[f"{name}_text_prompt"] = method.bank.prompts.detach().clone()
        test = tiny.features()[torch.from_numpy(vectors[f"{name}_test_idx"])]
        actual[f"{name}_test_logits"] = method.logits(test, range(own[-1] + 1))
    vectors.check(actual)
