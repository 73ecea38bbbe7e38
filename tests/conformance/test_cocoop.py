"""CoCoOp against its authors' trainer: the same initial weights and image by image steps."""

import pytest
import torch
import torch.nn.functional as F

from methods.text_prompts.cocoop import CoCoOp, CoCoOpSettings
from tests.conformance.stored_batches import StoredOrder, all_seen, fit_stored, load, one_task, optimiser_settings


@pytest.mark.vectors("cocoop")
def test_logits_gradients_and_steps(vectors, tiny):
    params = vectors.params
    names = [tiny.class_names[c] for c in vectors["classes"]]
    images = tiny.features()[torch.from_numpy(vectors["batch_idx"])]
    labels = torch.from_numpy(vectors["labels"])
    settings = CoCoOpSettings(
        context_words=params["context_text"],
        reduction=params["meta_net_reduction"],
        **optimiser_settings(params["optimiser"], params["batch_size"]),
    )
    cocoop = all_seen(CoCoOp(settings, tiny.backbone, one_task(names), StoredOrder("cocoop")))
    down, up = cocoop.meta_net[0], cocoop.meta_net[2]
    weights = {"w1": down.weight, "b1": down.bias, "w2": up.weight, "b2": up.bias}
    for name, value in weights.items():
        load(value, vectors.tensor(f"meta_{name}"))

    text = cocoop.text_of(cocoop.seen)
    actual = {
        "ctx0": cocoop.context.detach().clone(),
        "tokens": text.tokens,
        "logits0": cocoop.logits(images, range(len(names))),
        "meta_bias0": cocoop.meta_net(F.normalize(images, dim=-1)),
    }
    first = slice(0, params["batch_size"])
    cocoop.loss(text, images[first], labels[first]).backward()
    actual["grad_ctx0"] = cocoop.context.grad.clone()
    actual |= {f"grad_{name}_0": value.grad.clone() for name, value in weights.items()}
    cocoop.zero_grad()

    rows = torch.arange(params["n_steps"] * params["batch_size"]) % len(images)
    actual["losses"] = fit_stored(cocoop, images[rows], labels[rows])
    actual["ctx_final"] = cocoop.context
    actual |= {f"meta_{name}_final": value for name, value in weights.items()}
    actual["logits_final"] = cocoop.logits(images, range(len(names)))
    vectors.check(actual)
