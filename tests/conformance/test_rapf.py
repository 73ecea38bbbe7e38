"""RAPF against its authors' whole loop: stored orders, old classes and noise in; statistics, steps, fusion and logits out."""

from collections.abc import Callable

import pytest
import torch

from bench.system.randomness import Draws
from methods import rapf
from methods.rapf import RAPF
from methods.shared import class_gaussians
from tests.conformance.image_streams import PRECISIONS
from tests.conformance.stored_runs import World, places_in


class StoredDraws(Draws):
    """The start of the adapter, orders of images and of old classes, and the noise of every step."""

    def __init__(self, vectors):
        super().__init__("conformance", "rapf", 0)
        self.vectors = vectors

    def permutation(self, n, *purpose):
        what, task, epoch = purpose
        if what == "old classes":
            order = torch.from_numpy(self.vectors[f"task{task}/old_class_order"][epoch])
        else:
            assert what == "batch order"
            order = places_in(self.vectors[f"task{task}/train_index"], self.vectors[f"task{task}/order"][epoch])
        assert len(order) == n
        return order

    def normal(self, shape, *purpose):
        what, task, step = purpose
        stored = self.vectors[f"task{task}/{dict(replay='draws_memory', pairs='draws_pairs')[what]}"][step]
        assert stored.shape == tuple(shape)
        return torch.from_numpy(stored).double()


class Record:
    """Notes what the learning of one task computes."""

    def __init__(self, method: RAPF, monkeypatch):
        self.method, self.notes = method, {}
        self.note(monkeypatch, rapf, "text_distances", "text_distance")
        self.note(monkeypatch, rapf, "neighbours", "hard_pairs")
        self.note(monkeypatch, class_gaussians, "ridged_covariance", "covariances")
        self.note(monkeypatch, method, "losses", "losses")
        self.note(monkeypatch, method, "replay", "memory")
        self.note(monkeypatch, method, "features_of_pairs", "of_pairs")
        self.note(monkeypatch, method, "fit", "trained", lambda _: method.adapter.detach().clone())
        cross_entropy, adam_step = rapf.F.cross_entropy, torch.optim.Adam.step

        def recorded_targets(logits, targets):
            self.notes.setdefault("targets", []).append(targets)
            return cross_entropy(logits, targets)

        def recorded_step(optimiser, *rest):
            (group,) = optimiser.param_groups
            self.notes.setdefault("rates", []).append(group["lr"])
            self.notes.setdefault("gradients", []).append(method.adapter.grad.clone())
            adam_step(optimiser, *rest)
            self.notes.setdefault("weights", []).append(method.adapter.detach().clone())

        monkeypatch.setattr(rapf.F, "cross_entropy", recorded_targets)
        monkeypatch.setattr(torch.optim.Adam, "step", recorded_step)

    def note(self, monkeypatch, owner, function: str, name: str, of: Callable = lambda value: value) -> None:
        original = getattr(owner, function)

        def recorded(*arguments):
            value = original(*arguments)
            self.notes.setdefault(name, []).append(of(value))
            return value

        monkeypatch.setattr(owner, function, recorded)

    def arrays(self, n_old: int) -> dict[str, torch.Tensor]:
        """Under the names of the stored ones. Before there are old classes, nothing is drawn."""
        notes, settings = self.notes, self.method.settings
        cross_entropy, hinge = (torch.stack(parts).detach() for parts in zip(*notes["losses"]))
        gaussians, covariances = self.method.gaussians, torch.stack(notes["covariances"])
        found = {
            "targets": torch.nn.utils.rnn.pad_sequence(notes["targets"], batch_first=True, padding_value=-1),
            "loss_ce": cross_entropy,
            "loss_hinge": hinge,
            "loss": cross_entropy + settings.hinge_weight * hinge,
            "learning_rates": torch.tensor(notes["rates"], dtype=torch.float64),
            "grad0": notes["gradients"][0],
            "adapter_step1": notes["weights"][0],
            "adapter_trained": notes["trained"][0],
            "adapter": self.method.adapter.detach().clone(),
            "class_mean": gaussians.means[n_old:],
            "class_cov_diagonal": covariances.diagonal(dim1=1, dim2=2),
            "class_cov_first": covariances[0],
            "class_cov_first_shrunk": gaussians.factors[n_old] @ gaussians.factors[n_old].T,
        }
        if n_old:
            width = gaussians.means.shape[1]
            no_pairs = torch.zeros(0, settings.samples_per_pair, width)
            found |= {
                "text_distance": notes["text_distance"][0],
                "hard_pairs": notes["hard_pairs"][0],
                "memory_samples_step0": notes["memory"][0][0].unflatten(0, (-1, settings.samples_per_class)),
                "pair_samples_step0": notes["of_pairs"][0] if "of_pairs" in notes else no_pairs,
            }
        return found


@PRECISIONS
@pytest.mark.vectors("rapf")
def test_rapf(vectors, tiny, tmp_path, monkeypatch, precision):
    never_learned = vectors["class_order"].tolist()[sum(map(len, vectors.tasks)) :]
    world = World(tiny, tmp_path, precision, "class-incremental", vectors.tasks, ["{}"], never_learned)
    method = RAPF(settings(vectors.params), world.backbone, world.scenario, StoredDraws(vectors))
    monkeypatch.setattr(method, "random_adapter", lambda: torch.from_numpy(vectors["adapter0"]))
    test_features = world.unlabelled(vectors["test_index"]).features()
    actual = {"image_features": world.unlabelled().features(), "text_features": method.text}
    torch.testing.assert_close(method.adapter.detach(), torch.eye(len(method.adapter), dtype=world.backbone.dtype))
    for index, classes in enumerate(world.classes):
        rows = torch.from_numpy(vectors[f"task{index}/train_index"])
        with monkeypatch.context() as patch:
            record = Record(method, patch)
            method.learn(world.task(index, rows, world.positions(rows)))
        actual |= {f"task{index}/{name}": values for name, values in record.arrays(classes[0]).items()}
        actual[f"task{index}/test_logits"] = method.logits(test_features, range(classes[-1] + 1))
        actual[f"task{index}/test_logits_all_classes"] = method.logits(test_features, range(len(method.text)))
    vectors.check(actual, dtype=precision)


def settings(params: dict) -> RAPF.Settings:
    optimiser = params["optimiser"]
    plain_adam = {"name": "Adam", "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
    assert optimiser.items() >= plain_adam.items() and params["optimiser_reset_per_task"] and not params["drop_last"]
    assert params["lr_factor"] == rapf.RATE_DROP
    assert params["shrinkage_diagonal"] == params["shrinkage_off_diagonal"] == 1
    return RAPF.Settings(
        lr=optimiser["lr"], epochs=params["epochs"], milestones=tuple(params["milestones"]), batch_size=params["batch_size"],
        old_classes_per_batch=params["old_classes_per_batch"], samples_per_class=params["replay_samples_per_class"],
        samples_per_pair=params["samples_per_pair"], threshold=params["threshold"], margin=params["margin"],
        hinge_weight=params["hinge_weight"], mix_bias=params["fusion_bias"], covariance_ridge=params["covariance_ridge"],
        shrinkage=params["shrinkage"], template=params["template"],
    )  # fmt: skip
