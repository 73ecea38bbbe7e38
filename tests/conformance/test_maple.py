"""MaPLe against its authors' trainer and their modified CLIP: the same initial prompts and batches, number by number."""

import pytest
import torch
import torch.nn.functional as F

from methods.text_prompts.maple import MaPLe, MaPLeSettings
from tests.conformance.stored_batches import StoredOrder, all_seen, fit_stored, load, one_task, optimiser_settings


@pytest.mark.vectors("maple")
def test_forward_gradients_and_steps(vectors, tiny):
    params = vectors.params
    names = [tiny.class_names[c] for c in vectors["classes"]]
    position = {int(c): k for k, c in enumerate(vectors["classes"])}
    train, test = (pixels(tiny, vectors[f"{part}_idx"]) for part in ("train", "test"))
    batches = torch.from_numpy(vectors["batches"])  # (steps, batch)
    in_order = torch.tensor([position[int(c)] for c in tiny.labels[batches.flatten()]])
    settings = MaPLeSettings(
        prompt_length=params["prompt_length"],
        prompt_depth=params["prompt_depth"],
        context_words=params["context_text"],
        **optimiser_settings(params["optimiser"], batches.shape[1]),
    )
    maple = all_seen(MaPLe(settings, tiny.backbone, one_task(names), StoredOrder("maple")))
    for name, value in named(maple.deep).items():
        load(value, vectors.tensor(f"init.{name}"))

    text = maple.text_of(maple.seen)
    shallow, *deeper = maple.deep.image_prompts()
    actual = {
        "tokens": text.tokens,
        "vision_shallow0": shallow,
        "vision_deep0": torch.stack(deeper) if deeper else torch.zeros(0, *shallow.shape),
        "text_raw0": maple.deep.text_features(text),
        "image_raw0": maple.deep.image_features(train[: params["image_raw0_rows"]]),
    }
    maple.store_class_vectors()
    actual["logits0"] = maple.logits(train, range(len(names)))
    first = slice(0, batches.shape[1])
    maple.loss(text, pixels(tiny, batches[0].numpy()), in_order[first]).backward()
    actual |= {f"grad0.{name}": value.grad.clone() for name, value in leaves(maple.deep).items()}
    actual["grad0.ctx"], deeper_gradients = maple.deep.context.grad.clone(), maple.deep.deeper.grad
    actual |= {f"grad0.compound_prompts_text.{j}": gradient.clone() for j, gradient in enumerate(deeper_gradients)}
    maple.zero_grad()

    actual["losses"] = fit_stored(maple, pixels(tiny, batches.flatten().numpy()), in_order)
    actual |= {f"final.{name}": value for name, value in named(maple.deep).items()}
    maple.store_class_vectors()
    actual["logits_test_final"] = maple.logits(test, range(len(names)))
    vectors.check(actual)

    unit = F.normalize(actual["image_raw0"], dim=-1) @ F.normalize(actual["text_raw0"], dim=-1).T
    torch.testing.assert_close(tiny.backbone.logit_scale * unit, actual["logits0"][: len(unit)], rtol=1e-4, atol=1e-4)


def pixels(tiny, rows) -> torch.Tensor:
    rows = torch.from_numpy(rows)
    return tiny.split(rows, tiny.labels[rows]).pixels()


def leaves(deep) -> dict[str, torch.Tensor]:
    """The projections' parameters under the authors' names."""
    found = {f"proj.{name}": value for name, value in deep.projection.named_parameters()}
    for name, value in deep.deeper_projections.named_parameters():
        found[f"compound_prompt_projections.{name}"] = value
    return found


def named(deep) -> dict[str, torch.Tensor]:
    """Every trained tensor under the authors' names; the deeper prompts are rows of one."""
    prompts = {f"compound_prompts_text.{j}": prompt for j, prompt in enumerate(deep.deeper.data)}
    return {"ctx": deep.context, **prompts, **leaves(deep)}
