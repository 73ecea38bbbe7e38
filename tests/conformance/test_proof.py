"""PROOF against the released network and training step: the same modules and batches, number by number."""

import numpy as np
import pytest
import torch

from bench.streams.stream import Scenario, SealedSplit, Task
from bench.system.randomness import Draws
from methods.proof.proof import PROOF, PROOFSettings
from methods.shared.rehearsal import TrainingSet

ATTENTION = {
    "w_qs.weight": "queries.weight",
    "w_ks.weight": "keys.weight",
    "w_vs.weight": "values.weight",
    "fc.weight": "output.weight",
    "fc.bias": "output.bias",
    "layer_norm.weight": "norm.weight",
    "layer_norm.bias": "norm.bias",
}


class InOrder(Draws):
    """Batches come in the order of the rows; everything else that is drawn is then replaced."""

    def permutation(self, n, *purpose):
        return torch.arange(n)


def settings_of(params) -> PROOFSettings:
    optimiser, weights = params["optimiser"], params["loss_weights"]
    assert set(weights.values()) == {1.0} and not optimiser["nesterov"] and optimiser["schedule"] == "constant"
    return PROOFSettings(
        context_prompts=params["context_prompts_per_task"],
        dropout=params["dropout"],
        epochs=1,
        batch_size=params["batch_size"],
        learning_rate=optimiser["lr"],
        momentum=optimiser["momentum"],
        weight_decay=optimiser["weight_decay"],
        cosine_floor=1.0,
    )


def parameter_names(method: PROOF) -> dict[str, torch.nn.Parameter]:
    """The reference's names of the trained tensors, in its order."""
    named = {"convnet.logit_scale": method.logit_scale}
    for kind, projections in (("img", method.image_projections), ("text", method.text_projections)):
        for task, projection in enumerate(projections):
            named[f"projs_{kind}.{task}.MLP.0.weight"] = projection.weight
            named[f"projs_{kind}.{task}.MLP.0.bias"] = projection.bias
    own = dict(method.fusion.named_parameters())
    for name in ("w_qs.weight", "w_ks.weight", "w_vs.weight", "layer_norm.weight", "layer_norm.bias", "fc.weight", "fc.bias"):
        named[f"sel_attn.{name}"] = own[ATTENTION[name]]
    return named | {f"context_prompts.{task}": context for task, context in enumerate(method.contexts)}


class Steps:
    """Wraps `losses`: the parts of every step's loss, and what the first batch gives before any update."""

    def __init__(self, method: PROOF):
        self.method, self.losses, self.fuse = method, method.losses, method.fuse
        method.losses, method.fuse = self.record, self.record_fused
        self.clear()

    def clear(self):
        self.parts, self.first = [], {}

    def record_fused(self, *arguments):
        self.fused = self.fuse(*arguments)
        return self.fused

    def record(self, classes, images, columns):
        parts = self.losses(classes, images, columns)
        self.parts.append(torch.stack([*parts, sum(parts)]).detach())
        if not self.first:
            named = parameter_names(self.method)
            trained = [p for p in named.values() if p.requires_grad]
            gradients = dict(zip(map(id, trained), torch.autograd.grad(sum(parts), trained, retain_graph=True)))
            self.first = {
                "b0_logits": (self.fused.images @ self.fused.texts.T).detach(),
                "b0_proto_logits": (self.fused.images @ self.fused.prototypes.T).detach(),
                "b0_image_out": self.fused.images.detach(),
                "grad_norms": torch.stack(
                    [gradients[id(p)].norm() if id(p) in gradients else torch.zeros(()) for p in named.values()]
                ),
                "requires_grad": np.array([f"{name}:{int(p.requires_grad)}" for name, p in named.items()]),
            }
        return parts


@torch.no_grad()
def load_new_modules(method: PROOF, vectors, name: str) -> None:
    for kind, projections in (("img", method.image_projections), ("text", method.text_projections)):
        projections[-1].weight.copy_(vectors.tensor(f"{name}_proj_{kind}_w0"))
        projections[-1].bias.copy_(vectors.tensor(f"{name}_proj_{kind}_b0"))
    assert method.contexts[-1].shape == vectors.tensor(f"{name}_context0").shape
    method.contexts[-1].copy_(vectors.tensor(f"{name}_context0"))


@pytest.mark.vectors("proof")
def test_a_continual_run(vectors, tiny):
    params, sizes = vectors.params, [len(classes) for classes in vectors.tasks]
    order = [c for classes in vectors.tasks for c in classes]
    position = torch.full((len(tiny.class_names),), -1)
    position[torch.tensor(order)] = torch.arange(len(order))
    templates = [str(t) for t in vectors["templates"]]
    templates.insert(0, templates.pop(params["train_template_index"]))  # the first one is used in training
    names = tuple(tiny.class_names[c] for c in order)
    owners = tuple(np.repeat(range(len(sizes)), sizes).tolist())
    scenario = Scenario("class-incremental", names, (tuple(templates),) * len(names), owners)
    method = PROOF(settings_of(params), tiny.backbone, scenario, InOrder("vectors", "proof", 0))
    method.fusion.load_state_dict({ATTENTION[key]: value for key, value in vectors.group("attn0.").items()})
    steps, actual = Steps(method), {}
    for index in range(len(sizes)):
        name, own = f"task{index + 1}", tuple(range(sum(sizes[:index]), sum(sizes[: index + 1])))
        rows = torch.nonzero(torch.isin(position[tiny.labels], torch.tensor(own)) & tiny.is_train).flatten()
        task = Task(index, name, own, tiny.split(rows, position[tiny.labels[rows]]), SealedSplit())
        method.grow(task)
        load_new_modules(method, vectors, name)
        # the stored batches, exemplars among them, one after another as a single epoch
        mixed = torch.from_numpy(vectors[f"{name}_batches"]).flatten()
        stored = tiny.features()[mixed]
        method.task_and_exemplars = lambda train: TrainingSet(position[tiny.labels[mixed]], lambda r, mirrored: stored[r])
        steps.clear()
        method.learn(task)

        columns = [("fused_ce", "clip_contrastive", "prototype_ce", "sum").index(c) for c in params["loss_columns"]]
        parts = [("projected_text", "fused", "prototype").index(part) for part in params["logit_parts"]]
        test = tiny.features()[torch.from_numpy(vectors[f"{name}_test_idx"])]
        actual |= {f"{name}_{key}": value for key, value in steps.first.items()}
        actual |= {
            f"{name}_prototypes": method.prototypes,
            f"{name}_losses": torch.stack(steps.parts)[:, columns],
            f"{name}_proj_img_w_row0": method.image_projections[-1].weight[0].detach().clone(),
            f"{name}_context_final": method.contexts[-1].detach().clone(),
            f"{name}_logit_scale": method.logit_scale.detach().clone(),
            f"{name}_attn_fc_row0": method.fusion.output.weight[0].detach().clone(),
            f"{name}_test_logits": method.logits(test, range(own[-1] + 1)),
            f"{name}_test_logits_parts": torch.stack(method.score_parts(test))[parts],
        }
    vectors.check(actual)
