"""SimpleCIL against LAMDA-PILOT's code on the fixture's image tower: prototypes and logits after each task."""

import pytest
import torch

from methods.closed_form.simplecil import SimpleCIL
from tests.conformance.image_streams import PRECISIONS, stream_of
from tests.conformance.stored_runs import StoredDraws

FEATURES = {"pre": "pooled", "proj": "projected"}


@PRECISIONS
@pytest.mark.vectors("simplecil")
def test_simplecil(vectors, tiny, tmp_path, precision):
    world, tasks = stream_of(vectors, tiny, tmp_path, precision)
    everything = world.unlabelled()
    actual = {f"features_{name}": everything.features(layer=layer) for name, layer in FEATURES.items()}
    for variant in vectors.params["variants"]:
        settings = SimpleCIL.Settings(feature=FEATURES[variant], scale=vectors.params["sigma"])
        method = SimpleCIL(settings, world.backbone, world.scenario, StoredDraws())
        test_features = actual[f"features_{variant}"][torch.from_numpy(vectors["test_index"])]
        for task in tasks("train_index", "train_label"):
            method.learn(task)
            seen = range(task.classes[-1] + 1)
            actual[f"task{task.index}/{variant}/prototypes"] = method.prototypes
            actual[f"task{task.index}/{variant}/test_logits"] = method.logits(test_features, seen)
    vectors.check(actual, dtype=precision)
