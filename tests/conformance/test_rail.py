"""RAIL against its authors' code: both forms after every task, the fusion with zero-shot CLIP and the predictions."""

import pytest
import torch
import torch.nn.functional as F

from bench.streams.stream import Task
from bench.system.randomness import Draws
from methods.closed_form.rail import RAILDual, RAILPrimal


@pytest.mark.parametrize("solver", ["recursive", "gram", "woodbury"])
@pytest.mark.vectors("rail", methods=("rail-primal", "rail-dual"))
def test_rail(vectors, tiny, monkeypatch, solver):
    params = vectors.params
    assert params["activation"] == "relu"
    fusion = {
        "fusion_weight": params["fusion_weight"],
        "temperature": params["zero_shot_temperature"],
        "label_space": "all",
        "template": params["template"],
    }
    stream = stored_stream(vectors, tiny)
    primal_settings = RAILPrimal.Settings(
        expansion=params["hidden"], ridge=params["primal_ridge"], solver=solver, rows=params["batch_size"], **fusion
    )
    dual_settings = RAILDual.Settings(gamma=params["dual_gamma"], ridge=params["dual_ridge"], **fusion)
    draws = Draws("conformance", "rail", 0)
    primal = RAILPrimal(primal_settings, tiny.backbone, stream.scenario, draws)
    dual = RAILDual(dual_settings, tiny.backbone, stream.scenario, draws)
    primal.expansion = vectors.tensor("expansion_weight")

    test = tiny.features()[torch.from_numpy(vectors["test_idx"])]
    every_class = range(len(stream.scenario.class_names))
    zero_shot = primal.logits(test, every_class)  # before the first task
    actual = {
        "zero_shot_weights": primal.class_vectors,
        "zero_shot_probs": zero_shot,
        "image_features_test": F.normalize(test, dim=-1),
    }
    for task in stream.tasks:
        place, n = f"task{task.index + 1}", task.classes[-1] + 1
        for method in (primal, dual):
            method.learn(task.for_training())
        inverse = inverse_of(primal)
        actual |= {
            f"{place}_R_diag": inverse.diagonal(),
            f"{place}_R_row0": inverse[0],
            f"{place}_W": (primal.ridge if solver == "recursive" else primal).weights.T.clone(),
            f"{place}_alpha": dual.ridge.alpha,
            f"{place}_mask": zero_shot.argmax(dim=-1) < n,
        }
        for name, method in (("primal", primal), ("dual", dual)):
            fused = method.logits(test, every_class)
            actual[f"{place}_{name}_out"] = method.regression(F.normalize(test, dim=-1))
            actual[f"{place}_{name}_fused"], actual[f"{place}_{name}_pred"] = fused, fused.argmax(dim=-1)
    actual["features_memory"] = dual.ridge.inputs
    vectors.check(actual)


def stored_stream(vectors, tiny):
    """A stream with the stored training images in their order."""
    order = [c for classes in vectors.tasks for c in classes]
    sizes = [len(classes) for classes in vectors.tasks]
    position = {c: k for k, c in enumerate(order)}
    labels = torch.tensor([position.get(int(c), -1) for c in tiny.labels])
    stream = tiny.stream([tiny.class_names[c] for c in order], sizes, labels, ["{}"])
    tasks = []
    for task in stream.tasks:
        rows = torch.from_numpy(vectors[f"task{task.index + 1}_train_idx"])
        tasks.append(Task(task.index, task.name, task.classes, tiny.split(rows, labels[rows]), task.test))
    return type(stream)(stream.scenario, tuple(tasks))


def inverse_of(primal: RAILPrimal) -> torch.Tensor:
    """(H^T H + lambda I)^-1 as each solver implies it."""
    ridge = primal.settings.ridge
    if primal.settings.solver == "recursive":
        return primal.ridge.inverse_so_far(primal.settings.expansion).clone()  # the next task changes it in place
    gram = primal.ridge.sums()[0] if primal.settings.solver == "gram" else None
    if gram is None:
        h = primal.expand(primal.ridge.inputs).double()
        gram = h.T @ h
    return torch.linalg.inv(gram + ridge * torch.eye(len(gram), dtype=gram.dtype))
