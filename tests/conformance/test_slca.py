"""SLCA against its authors' code on the fixture's image tower: both stages with stored orders, heads and drawn features."""

import pytest
import torch

from bench.system.randomness import Draws
from methods.image_tower import slca
from methods.image_tower.slca import SLCA
from tests.conformance.image_streams import PRECISIONS, stream_of


class StoredOrders(Draws):
    """The stored orders: of a task's images in stage 1, of the drawn features in stage 2."""

    def __init__(self, vectors):
        super().__init__("conformance", "slca", 0)
        self.vectors = vectors

    def permutation(self, n, *purpose):
        what, task, epoch = purpose
        if what == "alignment order":
            order = torch.from_numpy(self.vectors[f"task{task}/ca/permutation"][epoch])
        else:
            assert what == "batch order"
            place = {int(image): k for k, image in enumerate(self.vectors[f"task{task}/train_index"])}
            order = torch.tensor([place[int(image)] for image in self.vectors[f"task{task}/stage1/batch_order"][epoch]])
        assert len(order) == n
        return order


@PRECISIONS
@pytest.mark.vectors("slca")
def test_slca(vectors, tiny, tmp_path, monkeypatch, precision):
    world, tasks = stream_of(vectors, tiny, tmp_path, precision)
    method = SLCA(settings(vectors), world.backbone, world.scenario, StoredOrders(vectors))
    losses = []
    cross_entropy = slca.F.cross_entropy

    def recorded(*arguments):
        losses.append(cross_entropy(*arguments))
        return losses[-1]

    def drawn_features(task, epoch):
        return torch.from_numpy(vectors[f"task{task}/ca/samples"][epoch]).to(world.backbone.dtype)

    monkeypatch.setattr(slca.F, "cross_entropy", recorded)
    monkeypatch.setattr(method, "draw_features", drawn_features)

    actual = {}
    pixels = world.unlabelled(vectors["test_index"]).pixels()
    for task in tasks("train_index", "train_label"):
        place, seen = f"task{task.index}", task.classes[-1] + 1
        method.grow(task)
        method.heads.to(world.backbone.dtype)
        start_from(method, vectors, place, list(task.classes))
        losses.clear()
        method.learn(task)
        steps = vectors.params["alignment"]["n_epochs"] * seen if task.index else 0
        assert (f"{place}/ca/samples" in vectors) == (steps > 0)
        found = {f"stage1/{name}": values for name, values in tower_and_heads(method).items()}
        found |= statistics(method)
        found |= {
            "stage1/loss_per_iter": torch.stack(losses[: len(losses) - steps]),
            "test_logits": method.logits(pixels, range(seen)),
        }
        if steps:
            found |= {
                "ca/loss_per_iter": torch.stack(losses[-steps:]),
                "ca/head_weight": method.aligned_weight,
                "ca/head_bias": method.aligned_bias,
            }
        actual |= {f"{place}/{name}": values for name, values in found.items()}
    vectors.check(actual, dtype=precision)


def settings(vectors) -> SLCA.Settings:
    params = vectors.params
    head, alignment = params["head_optimiser"], params["alignment"]
    for optimiser in (head, alignment["optimiser"]):
        assert optimiser["name"] == "SGD" and not optimiser["nesterov"]
    for shared in ("lr", "momentum", "weight_decay"):
        assert head[shared] == alignment["optimiser"][shared]
    assert params["milestone_gamma"] == 0.1 and alignment["only_after_first_task"] and not params["drop_last"]
    assert alignment["batch_size"] == alignment["samples_per_class"]
    return SLCA.Settings(
        lr=head["lr"], momentum=head["momentum"], weight_decay=head["weight_decay"],
        tower_lr_factor=params["tower_lr_factor"], milestones=tuple(vectors["hp_milestones"].tolist()),
        epochs=int(vectors["hp_epochs"]), batch_size=int(vectors["hp_bs"]), covariance_ridge=params["covariance_ridge"],
        alignment_epochs=alignment["n_epochs"], samples_per_class=alignment["samples_per_class"],
        logit_norm=alignment["logit_norm_temperature"], crop_scale=1.0, mirrored_view=False,
    )  # fmt: skip


def start_from(method: SLCA, vectors, place: str, classes: list[int]) -> None:
    """The newest head as the stored run drew it; the older ones must be where stage 1 left them."""
    weight, bias = (torch.from_numpy(vectors[f"{place}/start/head_{what}"]) for what in ("weight", "bias"))
    for ours, stored in ((method.heads[-1].weight, weight), (method.heads[-1].bias, bias)):
        ours.data = stored[classes].to(ours)
    torch.testing.assert_close(
        torch.cat([head.weight for head in method.heads]).double(), weight, rtol=0, atol=1e-3 * float(weight.abs().max())
    )


@torch.no_grad()
def tower_and_heads(method: SLCA) -> dict[str, torch.Tensor]:
    tower = dict(method.tower.named_parameters())
    last = max(int(name.split(".")[2]) for name in tower if name.startswith("transformer.resblocks."))
    return {
        "head_weight": torch.cat([head.weight for head in method.heads]).clone(),
        "head_bias": torch.cat([head.bias for head in method.heads]).clone(),
        "backbone_ln_post_weight": tower["ln_post.weight"].clone(),
        f"backbone_block{last}_c_proj_bias": tower[f"transformer.resblocks.{last}.mlp.c_proj.bias"].clone(),
        "backbone_class_embedding": tower["class_embedding"].clone(),
        "backbone_param_sqnorm": sum(weights.square().sum() for name, weights in tower.items() if name != "proj"),
    }


def statistics(method: SLCA, corner: int = 16) -> dict[str, torch.Tensor]:
    factors = method.gaussians.factors
    covariances = factors @ factors.transpose(1, 2)
    return {
        "class_means": method.gaussians.means,
        "class_cov_diag": covariances.diagonal(dim1=1, dim2=2),
        "class_cov_fro": covariances.flatten(1).norm(dim=1),
        "class_cov_block16": covariances[:, :corner, :corner],
    }
