import dataclasses

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.learning.test_batches import TestBatches
from bench.system.randomness import Draws
from methods.residual_attention.diki import DIKI
from methods.residual_attention.familiarity import familiarity
from methods.residual_attention.held_out import divided
from methods.residual_attention.towers import Strength, image_features, text_features
from tests.methods.teaching import teach

QUICK = {
    "image_depth": 2, "text_depth": 1, "image_rows": 3, "text_rows": 4, "epochs": 2, "batch_size": 8, "lr": 0.5,
    "weight_divisor": 24.0,
}  # fmt: skip
ROUNDED = {"rtol": 1e-4, "atol": 1e-4}


def build(backbone, scenario, seed=0, **settings):
    return DIKI(DIKI.Settings(**{**QUICK, **settings}), backbone, scenario, Draws("test", "diki", seed))


@pytest.fixture
def stream(make_stream):
    return make_stream("task-incremental", sizes=(2, 3), per_class=40)  # more images than the 24 dimensions of a feature


@pytest.fixture
def learned(small_backbone, stream):
    return teach(build(small_backbone, stream.scenario), *stream.tasks)


def zero_shot(backbone, scenario, pixels, classes):
    texts = F.normalize(backbone.encode_text(scenario.prompts(classes)), dim=-1)
    return backbone.logit_scale * F.normalize(backbone.encode_images(pixels), dim=-1) @ texts.T


# -- the towers -------------------------------------------------------------------------------------------------


def by_hand(block, x, rows, weight, causal):
    """One block, head by head and query by query, as the paper writes it."""
    attention, normed = block.attn, block.ln_1(x)
    width, heads = x.shape[-1], attention.num_heads
    each = width // heads
    q, k, v = (normed @ w.T + b for w, b in zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)))
    gathered = torch.zeros_like(x)
    for sample in range(len(x)):
        for head in range(heads):
            own = slice(head * each, (head + 1) * each)
            for place in range(x.shape[1]):
                query, seen = q[sample, place, own] / each**0.5, place + 1 if causal else x.shape[1]
                frozen = (k[sample, :seen, own] @ query).softmax(dim=0) @ v[sample, :seen, own]
                read = (rows[0][:, own] @ query).softmax(dim=0) @ rows[1][:, own]
                gathered[sample, place, own] = frozen + weight[sample] * read
    x = x + attention.out_proj(gathered)
    return x + block.mlp(block.ln_2(x))


@torch.no_grad()
def test_a_second_attention_reads_the_rows_without_a_mask_and_is_weighed_sample_by_sample(small_backbone, stream):
    method = build(small_backbone, stream.scenario)
    method.grow(stream.tasks[0])
    additions, clip = method.banks[0].text, small_backbone.clip
    additions.rows[:, 1] = Draws("test", "values", 0).normal(additions.rows[:, 1].shape, "values")
    tokens, weight = method.tokens([0, 4]), torch.tensor([0.3, 0.8])
    found = text_features(clip, tokens, additions, Strength(weight, weight.mean()))
    length = int(tokens.argmax(dim=-1).max()) + 1
    x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
    x = by_hand(clip.transformer.resblocks[0], x, additions.rows[0], weight, causal=True)
    x = clip.transformer.resblocks[1](x, attn_mask=clip.attn_mask[:length, :length])
    expected = clip.ln_final(x)[torch.arange(2), tokens.argmax(dim=-1)] @ clip.text_projection
    torch.testing.assert_close(found, expected, **ROUNDED)


@torch.no_grad()
@pytest.mark.parametrize("what", ["untrained", "weight 0"])
def test_without_values_or_weight_the_towers_are_clips(small_backbone, stream, learned, what):
    method = build(small_backbone, stream.scenario)
    method.grow(stream.tasks[0])
    bank = (method if what == "untrained" else learned).banks[0]
    pixels, tokens = stream.tasks[0].train.pixels(torch.arange(3)), method.tokens([0, 1, 4])
    strength = None if what == "untrained" else Strength(torch.zeros(3), torch.zeros(()))
    images = image_features(small_backbone.clip.visual, pixels, bank.image, strength)
    torch.testing.assert_close(images, small_backbone.encode_images(pixels), **ROUNDED)
    texts = text_features(small_backbone.clip, tokens, bank.text, strength)
    torch.testing.assert_close(texts, small_backbone.clip.encode_text(tokens), **ROUNDED)


# -- learning ---------------------------------------------------------------------------------------------------


def test_keys_start_uniform_and_values_at_nothing(small_backbone, stream):
    method = build(small_backbone, stream.scenario, image_rows=50, text_rows=60)
    for task in stream.tasks:
        method.grow(task)
    for additions, depth, rows in ((method.banks[0].image, 2, 50), (method.banks[0].text, 1, 60)):
        assert additions.rows.shape == (depth, 2, rows, 32)
        keys, values = additions.rows.detach().unbind(dim=1)
        assert not values.any() and -1 <= keys.min() < -0.99 and 0.99 < keys.max() < 1 and abs(float(keys.mean())) < 0.05
    assert not torch.equal(method.banks[0].image.rows, method.banks[1].image.rows)  # each task has a draw of its own


def test_learning_a_task_moves_its_own_bank_alone(small_backbone, stream):
    method = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    before = {name: value.clone() for name, value in method.state_dict().items()}
    teach(method, stream.tasks[1])
    after = method.state_dict()
    for name, value in before.items():
        now = after[name][: len(value)] if name.startswith("gaussians") else after[name]
        assert torch.equal(now, value), name
    assert after["banks.1.image.rows"][:, 1].any() and after["banks.1.text.rows"][:, 1].any()


def test_it_learns(small_backbone, stream):
    method = teach(build(small_backbone, stream.scenario, epochs=6, lr=2.0), *stream.tasks)
    for task in stream.tasks:
        pixels, labels = task.train.pixels(), task.train.labels
        right = (method.logits(pixels, task.classes).argmax(dim=1) + task.classes[0] == labels).float().mean()
        before = zero_shot(small_backbone, stream.scenario, pixels, task.classes).argmax(dim=1) + task.classes[0] == labels
        assert float(right) > max(0.9, float(before.float().mean()))


@pytest.mark.parametrize(("accuracies", "kept"), [([0.5, 0.9, 0.9, 0.1], 1), ([0.2, 0.2, 0.2, 0.2], 0), ([0, 0, 0, 0.1], 3)])
def test_the_first_of_the_best_epochs_is_kept(small_backbone, stream, monkeypatch, accuracies, kept):
    method, after_epochs, left = build(small_backbone, stream.scenario, epochs=4), [], iter(accuracies)

    def accuracy(task, held_out):
        after_epochs.append(method.banks[0].image.rows.detach().clone())
        return next(left)

    monkeypatch.setattr(method, "validation_accuracy", accuracy)
    teach(method, stream.tasks[0])
    assert [torch.equal(method.banks[0].image.rows, rows) for rows in after_epochs] == [k == kept for k in range(4)]


def test_without_held_out_images_the_last_epoch_is_kept(small_backbone, stream, monkeypatch):
    method = build(small_backbone, stream.scenario, validation_share=0.0)
    monkeypatch.setattr(method, "validation_accuracy", lambda *arguments: pytest.fail("there are none"))
    teach(method, stream.tasks[0])
    assert method.banks[0].image.rows[:, 1].any()
    assert float(method.gaussians.means[0].norm()) > 0


def test_held_out_images_are_of_every_class_and_neither_trained_on_nor_in_the_gaussian(small_backbone, stream, monkeypatch):
    method, task = build(small_backbone, stream.scenario, epochs=1), stream.tasks[1]
    division, seen = method.divide(task), []
    training_logits = method.training_logits
    monkeypatch.setattr(method, "training_logits", lambda bank, x, t: seen.append(x) or training_logits(bank, x, t))
    method.grow(stream.tasks[0])
    method.gaussians.add([torch.randn(30, 24, generator=torch.Generator().manual_seed(0))])
    teach(method, task)
    assert sorted([*division.trained_on.tolist(), *division.held_out.tolist()]) == list(range(len(task.train)))
    assert task.train.labels[division.held_out].tolist() == [2] * 8 + [3] * 8 + [4] * 8  # 20 % of 40
    trained = {pixels.numpy().tobytes() for pixels in torch.cat(seen)}
    assert trained == {pixels.numpy().tobytes() for pixels in task.train.pixels(division.trained_on)}
    features = F.normalize(task.train.features()[division.trained_on], dim=-1)
    torch.testing.assert_close(method.gaussians.means[1], features.mean(dim=0))


def test_a_division_leaves_an_image_to_train_on():
    labels = torch.tensor([5, 7, 7, 9, 9, 9])
    division = divided(labels, 0.9, Draws("test", "diki", 0), "held out")
    assert labels[division.trained_on].tolist() == [5, 7, 9] and labels[division.held_out].tolist() == [7, 9, 9]
    assert len(divided(labels, 0.0, Draws("test", "diki", 0), "held out").held_out) == 0
    small = divided(labels, 0.01, Draws("test", "diki", 0), "held out")
    assert labels[small.held_out].tolist() == [7, 9]


@pytest.mark.parametrize("full", [True, False])
def test_epochs_are_compared_at_full_weight_or_as_a_test_would(small_backbone, stream, learned, full):
    task = stream.tasks[1]
    learned.settings = dataclasses.replace(learned.settings, validated_at_full_weight=full)
    held_out = task.train.chosen(learned.divide(task).held_out)
    pixels, bank, clip = held_out.pixels(), learned.banks[1], small_backbone.clip
    features = F.normalize(held_out.features(), dim=-1)
    weights = torch.sigmoid(learned.gaussians.log_density(features)[:, 1] / 24 - 1).float()
    image_strength = text_strength = None
    if not full:
        image_strength, text_strength = Strength(weights, weights.mean()), Strength(weights.mean().expand(3), weights.mean())
    with torch.no_grad():
        images = image_features(clip.visual, pixels, bank.image, image_strength)
        texts = text_features(clip, learned.tokens(task.classes), bank.text, text_strength)
    right = F.cosine_similarity(images.unsqueeze(1), texts, dim=2).argmax(dim=1) + 2 == held_out.labels
    assert learned.validation_accuracy(task, held_out) == pytest.approx(float(right.float().mean()))


def test_resumed_after_a_task_it_ends_with_the_same_numbers(small_backbone, stream, learned):
    """The images are familiar here: in a smaller trial every score would be zero-shot CLIP's, whatever the banks."""
    first = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    state = {name: value.clone() for name, value in first.state_dict().items()}
    resumed = build(small_backbone, stream.scenario)
    resumed.grow(stream.tasks[0])
    resumed.load_state_dict(state)
    teach(resumed, stream.tasks[1])
    pixels = torch.cat([task.train.pixels(torch.arange(3)) for task in stream.tasks])
    assert float(learned.familiarity_of(F.normalize(small_backbone.encode_images(pixels), dim=-1)).own_weights.min()) > 0.1
    assert torch.equal(resumed.logits(pixels, range(5)), learned.logits(pixels, range(5)))


# -- scores -----------------------------------------------------------------------------------------------------


def test_weights_own_tasks_and_a_tied_vote():
    densities = torch.tensor([[512.0, 100.0, 0.0], [0.0, -99.0, 1536.0], [5.0, 9.0, 8.0], [1.0, 7.0, -1e9]]).double()
    familiar = familiarity(densities, 512.0, 1.0)
    assert familiar.own_tasks.tolist() == [0, 2, 1, 1] and familiar.voted_task == 1
    torch.testing.assert_close(familiar.own_weights[:2], torch.sigmoid(torch.tensor([0.0, 2.0]).double()))
    assert float(familiar.weights[3, 2]) == 0.0
    assert familiarity(densities[:2], 512.0, 1.0).voted_task == 0  # one vote each: the lower number


def test_before_the_first_task_it_is_zero_shot_clip(small_backbone, stream):
    method, pixels = build(small_backbone, stream.scenario), stream.tasks[0].train.pixels(torch.arange(4))
    torch.testing.assert_close(
        method.logits(pixels, range(5)), zero_shot(small_backbone, stream.scenario, pixels, range(5)), **ROUNDED
    )


def test_a_batch_has_one_bank_its_images_have_their_own_weights_and_its_texts_the_mean(small_backbone, stream, learned):
    (first, second), clip = stream.tasks, small_backbone.clip
    pixels = torch.cat([first.train.pixels(torch.arange(2)), second.train.pixels(torch.arange(3))])
    features = F.normalize(small_backbone.encode_images(pixels), dim=-1)
    densities = learned.gaussians.log_density(features)
    assert densities.argmax(dim=1).tolist() == [0, 0, 1, 1, 1]
    own = torch.sigmoid(densities.amax(dim=1) / 24 - 1).float()
    with torch.no_grad():
        images = image_features(clip.visual, pixels, learned.banks[1].image, Strength(own, own.mean()))
        texts = text_features(clip, learned.tokens([4, 0]), learned.banks[1].text, Strength(own.mean().expand(2), own.mean()))
    expected = small_backbone.logit_scale * F.cosine_similarity(images.unsqueeze(1), texts, dim=2)
    torch.testing.assert_close(learned.logits(pixels, [4, 0]), expected, **ROUNDED)


def test_single_images_do_not_depend_on_each_other(stream, learned):
    pixels = torch.cat([task.train.pixels(torch.arange(2)) for task in stream.tasks])
    together = learned.logits(pixels, range(5))
    learned.settings = dataclasses.replace(learned.settings, test_batches="single")
    single = learned.logits(pixels, range(5))
    torch.testing.assert_close(learned.logits(pixels.flip(0), range(5)).flip(0), single)
    assert not torch.allclose(single, together, **ROUNDED)
    assert learned.test_batches is None


def test_it_says_how_test_batches_are_made_up(small_backbone, stream):
    method = build(small_backbone, stream.scenario)
    assert method.test_batches == TestBatches("task", 256, shuffled=False)
    mixed = build(small_backbone, stream.scenario, test_batches="mixed", test_batch_size=9)
    assert mixed.test_batches == TestBatches("mixed", 9, shuffled=False)


def test_images_far_from_every_gaussian_are_left_to_clip(small_backbone, make_stream):
    stream = make_stream("task-incremental", sizes=(2, 3), per_class=5)  # fewer images than dimensions: all are far
    method = teach(build(small_backbone, stream.scenario, lr=5.0, covariance_ridge=1e-9), *stream.tasks)
    pixels = stream.tasks[1].train.pixels(method.divide(stream.tasks[1]).held_out)
    assert float(method.familiarity_of(F.normalize(small_backbone.encode_images(pixels), dim=-1)).own_weights.max()) < 1e-3
    expected = zero_shot(small_backbone, stream.scenario, pixels, range(5))
    torch.testing.assert_close(method.logits(pixels, range(5)), expected, rtol=0.01, atol=0.01)


def test_underscores_of_the_whole_prompt_become_spaces(small_backbone, stream):
    scenario = dataclasses.replace(stream.scenario, class_names=("a_b", "c", "d", "e", "f"), templates=(("a_photo of {}.",),) * 5)
    assert build(small_backbone, scenario).prompts([0, 1]) == ["a photo of a b.", "a photo of c."]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"image_depth": 3}, "image tower has 2 blocks"),
        ({"text_depth": 3}, "text tower has 2 blocks"),
        ({"text_rows": 0}, "choose 1 or more"),
        ({"validation_share": 1.0}, "a share from 0 to less than 1"),
        ({"covariance_ridge": 0.0}, "must be positive"),
        ({"test_batches": "all"}, "choose task, mixed or single"),
    ],
)
def test_impossible_settings_are_refused(small_backbone, stream, settings, complaint):
    with pytest.raises(BenchError, match=complaint):
        build(small_backbone, stream.scenario, **settings)
