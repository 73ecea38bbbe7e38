"""Zero-shot CLIP against the released class-incremental model and CLAP4CLIP's template ensemble."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.system.randomness import Draws
from methods.continual_clip import ContinualCLIP
from methods.zero_shot import ZeroShot


def zero_shot(tiny, names, sizes, templates):
    """The method on a stream of these classes; no image is learned from."""
    stream = tiny.stream(names, sizes, torch.full((len(tiny.labels),), -1), templates)
    return ZeroShot(ZeroShot.Settings(), tiny.backbone, stream.scenario, Draws("vectors", "zero-shot", 0)), stream


def with_another_template(stream):
    """The stream's scenario with a template that must not be used."""
    return replace(stream.scenario, templates=(("never {}",),) * len(stream.scenario.class_names))


@pytest.mark.vectors("continual-clip", methods=("continual-clip", "zero-shot"))
def test_logits_as_classes_arrive_and_template_ensemble(vectors, tiny):
    names = [tiny.class_names[c] for classes in vectors.tasks for c in classes]
    sizes = [len(classes) for classes in vectors.tasks]
    features = tiny.features()[torch.from_numpy(vectors["test_idx"])]
    actual = {}

    # the released code multiplies by a literal, the model's own scale differs from it in the last digits
    method, stream = zero_shot(tiny, names, sizes, [vectors.params["template"]])
    scale = vectors.params["temperature"] / tiny.backbone.logit_scale
    for task, seen in enumerate(np.cumsum(sizes), start=1):
        logits = scale * method.logits(features, range(seen))
        actual[f"task{task}_tokens"] = tiny.backbone.tokenize(stream.scenario.prompts(range(seen)))
        actual[f"task{task}_logits"] = logits
        actual[f"task{task}_probs"] = logits.softmax(dim=-1)

    authors = ContinualCLIP.Settings(template=vectors.params["template"])
    own = ContinualCLIP(authors, tiny.backbone, with_another_template(stream), Draws("vectors", "continual-clip", 0))
    assert torch.equal(own.class_vectors, method.class_vectors)

    if "templates" in vectors:
        method, _ = zero_shot(tiny, names, sizes, [str(template) for template in vectors["templates"]])
        actual["ensemble_text_features"] = method.class_vectors
        actual["ensemble_logits"] = scale * method.logits(features, range(len(names)))
    vectors.check(actual)
