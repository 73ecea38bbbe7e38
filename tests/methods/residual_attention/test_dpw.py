import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.learning.test_batches import TestBatches
from bench.system.randomness import Draws
from methods.residual_attention import gate_starts
from methods.residual_attention.dpw import DPW
from methods.residual_attention.gated_prefixes import GatedPrefixes, Rules, Sizes
from methods.residual_attention.towers import Strength, image_features
from tests.methods.teaching import teach

QUICK = {
    "image_depth": 2, "text_depth": 1, "image_rows": 3, "text_rows": 3, "epochs": 2, "batch_size": 8, "lr": 0.5,
    "weight_divisor": 24.0,
    "adapter_rank": 4, "image_bias": -1.0, "text_bias": -0.5,
}  # fmt: skip
ROUNDED = {"rtol": 1e-4, "atol": 1e-4}


def build(backbone, scenario, seed=0, **settings):
    return DPW(DPW.Settings(**{**QUICK, **settings}), backbone, scenario, Draws("test", "dpw", seed))


def draws(seed=0):
    return Draws("test", "dpw", seed)


@pytest.fixture
def stream(make_stream):
    return make_stream("task-incremental", sizes=(2, 3), per_class=40)  # more images than the 24 dimensions of a feature


@pytest.fixture
def learned(small_backbone, stream):
    return teach(build(small_backbone, stream.scenario), *stream.tasks)


# -- one block's additions --------------------------------------------------------------------------------------

SIZES = Sizes(depth=1, width=8, positions=5, heads=2, rows=3, rank=2)


def additions(reduced=False, **rules) -> GatedPrefixes:
    """With random numbers everywhere, and gates that are open enough for the adapter."""
    rules = {"scale": 0.05, "dropout": 0.0, "certainty": 0.825, "statistics": True, "count_validation": True} | rules
    basis = draws().normal((1, 8, 2), "basis")
    made = GatedPrefixes(SIZES, Rules(reduced, **rules), lambda: basis)
    for name, parameter in made.named_parameters():
        parameter.data = draws().normal(parameter.shape, name)
    if made.rules.statistics:
        made.mean.copy_(draws().normal(made.mean.shape, "mean"))
        made.variance.copy_(draws().uniform(made.variance.shape, "variance") + 0.1)
    return made.eval()


def by_hand(made: GatedPrefixes, x: torch.Tensor, keep=lambda sample, head, gates: torch.ones_like(gates)) -> torch.Tensor:
    """R, token by token."""
    found = torch.zeros_like(x)
    for sample, position in ((n, place) for n in range(len(x)) for place in range(x.shape[1])):
        token = x[sample, position]
        adapter = made.rules.scale * (made.up_w[0] @ (token @ made.basis()[0]) + made.up_b[0])
        for head in range(2):
            own = slice(4 * head, 4 * head + 4)
            read = token[own] if made.rules.reduced else token
            gates = torch.sigmoid(read @ made.gate[0, head] + made.bias[0, head, position])
            total = max(1.0, float(gates.sum()))
            shares = gates / total
            shares = shares * keep(sample, head, shares)
            found[sample, position, own] = shares @ made.prefix[0, :, own] + (total - 1) * adapter[own]
    return found


@torch.no_grad()
@pytest.mark.parametrize("reduced", [False, True])
def test_gates_weigh_the_prefix_and_their_excess_opens_the_adapter(reduced):
    made, x = additions(reduced), draws().normal((2, 4, 8), "x")
    assert made.gate.shape == (1, 2, 4 if reduced else 8, 3)
    torch.testing.assert_close(made.added(0, x, x, None), by_hand(made, x))
    sure = Strength(torch.tensor([0.9, 0.8]), torch.tensor(0.85))
    torch.testing.assert_close(made.added(0, x, x, sure), by_hand(made, x) * torch.tensor([0.9, 0.8]).view(2, 1, 1))


@torch.no_grad()
def test_a_closed_adapter_changes_nothing_and_gets_no_gradient():
    made, x = additions(), draws().normal((2, 4, 8), "x")
    made.bias.fill_(-9.0)
    made.gate.mul_(0.1)
    before = made.added(0, x, x, None)
    made.up_w.mul_(100)
    torch.testing.assert_close(made.added(0, x, x, None), before)
    with torch.enable_grad():
        made.added(0, x, x, None).sum().backward()
    assert not made.up_w.grad.any() and not made.up_b.grad.any() and made.prefix.grad.any()


@torch.no_grad()
@pytest.mark.parametrize("mean", [0.82, 0.83])
def test_an_uncertain_batch_shuts_small_gates_of_images_by_how_usual_the_class_token_is(mean):
    made, x = additions(), draws().normal((2, 4, 8), "x")
    z = made.gate_inputs(0, x)[:, :, 0]
    normal = torch.distributions.Normal(made.mean[0], made.variance[0].sqrt())
    sureness = torch.sigmoid(normal.log_prob(z))  # (n, h, p)

    def keep(sample, head, shares):
        return (shares > 1 - sureness[sample, head]).float() if mean < 0.825 else torch.ones_like(shares)

    weights = torch.tensor([0.7, 0.4])  # their mean is not asked for: the batch's is
    expected = by_hand(made, x, keep) * weights.view(2, 1, 1)
    torch.testing.assert_close(made.added(0, x, x, Strength(weights, torch.tensor(mean))), expected)
    assert not torch.allclose(by_hand(made, x, keep), by_hand(made, x)) or mean > 0.825


@torch.no_grad()
def test_texts_shut_their_gates_by_the_weight():
    made, x = additions(statistics=False), draws().normal((2, 4, 8), "x")
    weight = torch.tensor(0.75)
    expected = 0.75 * by_hand(made, x, lambda sample, head, shares: (shares > 0.25).float())
    torch.testing.assert_close(made.added(0, x, x, Strength(weight.expand(2), weight)), expected)
    assert not torch.allclose(expected, 0.75 * by_hand(made, x))


@pytest.mark.parametrize("counted", [True, False])
@torch.no_grad()
def test_statistics_of_an_epoch_begin_with_the_validation_of_the_one_before(counted):
    made = additions(count_validation=counted)
    first, validation, second, test = (draws().normal((n, 4, 8), n) for n in (3, 5, 6, 7))
    made.train()
    made.added(0, first, first, None)
    made.close_epoch()
    z = made.gate_inputs(0, first)[:, :, 0]
    torch.testing.assert_close(made.mean[0], z.mean(dim=0))
    torch.testing.assert_close(made.variance[0], z.var(dim=0, correction=0))
    made.eval()
    made.added(0, validation, validation, None)
    made.added(0, test, test, Strength(torch.ones(7), torch.ones(())))  # a test is not counted
    made.train()
    made.added(0, second, second, None)
    made.close_epoch()
    z = made.gate_inputs(0, torch.cat([validation, second] if counted else [second]))[:, :, 0]
    torch.testing.assert_close(made.mean[0], z.mean(dim=0))
    torch.testing.assert_close(made.variance[0], z.var(dim=0, correction=0))


def test_dropout_keeps_the_mean_is_drawn_for_the_task_and_only_in_training():
    made, narrow = additions(dropout=0.25), torch.ones(40, 50, 2)
    made.generator = draws().generator("dropout")
    assert torch.equal(made.dropped(0, narrow), narrow)
    made.train()
    first, second = made.dropped(0, narrow), made.dropped(0, narrow)
    assert first.unique().tolist() == pytest.approx([0.0, 4 / 3]) and float(first.mean()) == pytest.approx(1, abs=0.05)
    assert not torch.equal(first, second)
    made.generator = draws().generator("dropout")
    assert torch.equal(made.dropped(0, narrow), first)


# -- starts -----------------------------------------------------------------------------------------------------


def test_prefixes_start_as_singular_vectors_of_the_values_as_long_as_their_columns(small_backbone, stream):
    method = build(small_backbone, stream.scenario)
    found = method.first_prefixes("image")
    for block, rows in zip(small_backbone.clip.visual.transformer.resblocks, found):
        values = block.attn.in_proj_weight[64:].double()
        length = values.norm(dim=0).mean()
        torch.testing.assert_close(rows.norm(dim=1), length.expand(3))
        singular = torch.linalg.svdvals(values)[:3]
        torch.testing.assert_close((rows / length @ values).norm(dim=1), singular)  # |u^T W_v| is its singular value


def test_gates_start_as_singular_vectors_of_queries_by_keys(small_backbone, stream):
    method = build(small_backbone, stream.scenario)
    found = method.first_gates("text", 4, task=0)  # (1, 4, 32, 3)
    attention = small_backbone.clip.transformer.resblocks[0].attn
    product = (attention.in_proj_weight[:32] @ attention.in_proj_weight[32:64].T).double()
    vectors = found[0].transpose(0, 1).flatten(1)  # head i has vectors 3 i .. 3 i + 2
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(12).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close((product.T @ vectors).norm(dim=0), torch.linalg.svdvals(product)[:12], atol=1e-5, rtol=1e-4)


def test_signs_do_not_depend_on_the_library_but_on_the_seed(small_backbone, stream, monkeypatch):
    build_prefixes = lambda seed=0: build(small_backbone, stream.scenario, seed).first_prefixes("image")  # noqa: E731
    before, svd = build_prefixes(), torch.linalg.svd
    assert not torch.allclose(before, build_prefixes(seed=1))
    torch.testing.assert_close(before.abs(), build_prefixes(seed=1).abs())

    class Flipped:
        def __init__(self, matrix):
            self.U = -svd(matrix).U

    monkeypatch.setattr(torch.linalg, "svd", Flipped)
    torch.testing.assert_close(build_prefixes(), before)


def test_the_basis_is_orthonormal_drawn_and_kept(small_backbone, stream):
    method, other = build(small_backbone, stream.scenario), build(small_backbone, stream.scenario, seed=1)
    basis = method.image_basis
    torch.testing.assert_close(basis.transpose(1, 2) @ basis, torch.eye(4).expand(2, -1, -1), **ROUNDED)
    assert "image_basis" in method.state_dict() and not torch.allclose(other.image_basis, basis)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.image_basis, basis)


def test_difficulty_by_its_formula():
    unit = F.normalize(draws().normal((7, 6), "features"), dim=-1).double()
    texts = F.normalize(draws().normal((3, 6), "texts"), dim=-1).double()
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2])

    def mean_cosine(rows):
        pairs = [float(rows[i] @ rows[j]) for i in range(len(rows)) for j in range(len(rows)) if i != j]
        return sum(pairs) / len(pairs)

    intra = 1 - sum(mean_cosine(unit[labels == c]) for c in range(3)) / 3
    means = F.normalize(torch.stack([unit[labels == c].mean(dim=0) for c in range(3)]), dim=-1)
    accuracy = max(1, int(((unit @ texts.T).argmax(dim=1) == labels).sum())) / 7
    expected = ((1 - mean_cosine(means) + 1 - mean_cosine(texts)) / 2) / (intra + 10 / 3) / accuracy
    assert gate_starts.task_difficulty(unit, labels, texts, 10.0) == pytest.approx(expected)


def test_difficulty_where_the_release_divides_by_zero():
    texts = torch.eye(3)
    none_right = gate_starts.task_difficulty(torch.eye(3)[[1, 2, 0]], torch.arange(3), texts, 10.0)
    assert none_right == pytest.approx(1 / (10 / 3) / (1 / 3))  # each class has one image, which counts for no spread
    assert gate_starts.task_difficulty(torch.eye(3)[:1], torch.tensor([0]), texts[:1], 10.0) == 0.0


@pytest.mark.parametrize(
    ("difficulty", "heads"), [(0.0, 1), (0.49, 1), (0.5, 1), (1.0, 2), (1.5, 4), (2.2, 4), (3.0, 8), (40.0, 8)]
)
def test_gate_heads_follow_the_difficulty_as_far_as_they_fit(small_backbone, stream, difficulty, heads):
    method = build(small_backbone, stream.scenario)  # 2 attention heads, 32 wide, 3 rows: 8 gate heads fit
    assert method.gate_heads("image", difficulty) == heads


@pytest.mark.parametrize(("attention_heads", "heads"), [(2, 1), (4, 1), (8, 2), (12, 4), (16, 4)])
def test_gate_heads_of_the_reduced_form_follow_the_tower(small_backbone, stream, monkeypatch, attention_heads, heads):
    method = build(small_backbone, stream.scenario, reduced=True)
    monkeypatch.setattr(method, "attention_heads", lambda tower: attention_heads)
    assert method.gate_heads("image", 99.0) == heads


# -- learning and scores ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduced", [False, True])
def test_it_learns(small_backbone, stream, reduced):
    method = teach(build(small_backbone, stream.scenario, epochs=5, reduced=reduced), *stream.tasks)
    for task in stream.tasks:
        right = method.logits(task.train.pixels(), task.classes).argmax(dim=1) + task.classes[0] == task.train.labels
        assert float(right.float().mean()) > 0.9


def test_a_start_is_not_clip_but_without_weight_it_is(small_backbone, stream):
    method = build(small_backbone, stream.scenario)
    method.grow(stream.tasks[0])
    method.start(stream.tasks[0], stream.tasks[0].train)
    pixels, bank = stream.tasks[0].train.pixels(torch.arange(3)), method.banks[0].eval()
    clip, frozen = small_backbone.clip, small_backbone.encode_images(pixels)
    with torch.no_grad():
        assert not torch.allclose(image_features(clip.visual, pixels, bank.image), frozen, **ROUNDED)
        nothing = Strength(torch.zeros(3), torch.zeros(()))
        torch.testing.assert_close(image_features(clip.visual, pixels, bank.image, nothing), frozen, **ROUNDED)


def test_an_incomplete_last_batch_is_left_out_of_steps_and_gaussian(small_backbone, stream):
    method, sizes = build(small_backbone, stream.scenario, batch_size=10, epochs=1), []  # 64 images are trained on
    training_logits = method.training_logits
    method.training_logits = lambda bank, pixels, tokens: sizes.append(len(pixels)) or training_logits(bank, pixels, tokens)
    teach(method, stream.tasks[0])
    assert sizes == [10] * 6
    features = F.normalize(stream.tasks[0].train.features(), dim=-1)
    assert len(method.seen_by_gaussian(features[:64], 0)) == 60 and len(method.seen_by_gaussian(features[:9], 0)) == 9
    method.settings = dataclasses.replace(method.settings, gaussian_of_whole_batches=False)
    assert torch.equal(method.seen_by_gaussian(features[:64], 0), features[:64])


def test_the_best_epoch_is_kept_with_its_statistics(small_backbone, stream, monkeypatch):
    method, states, accuracies = build(small_backbone, stream.scenario, epochs=3), [], iter([0.1, 0.9, 0.5])

    def accuracy(task, held_out):
        states.append({name: value.clone() for name, value in method.banks[0].state_dict().items()})
        return next(accuracies)

    monkeypatch.setattr(method, "validation_accuracy", accuracy)
    teach(method, stream.tasks[0])
    kept = method.banks[0].state_dict()
    assert {"image.mean", "image.variance"} <= set(kept) and not any(name.startswith("text.mean") for name in kept)
    assert [all(torch.equal(kept[name], state[name]) for name in kept) for state in states] == [False, True, False]


@pytest.mark.parametrize("difficulty", [0.2, 2.2])
def test_resumed_after_a_task_it_ends_with_the_same_numbers(small_backbone, stream, monkeypatch, difficulty):
    monkeypatch.setattr(DPW, "difficulty", lambda *arguments: difficulty)  # of 1 or 4 gate heads
    first = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    state = {name: value.clone() for name, value in first.state_dict().items()}
    whole, resumed = teach(first, stream.tasks[1]), build(small_backbone, stream.scenario)
    resumed.grow(stream.tasks[0])
    resumed.load_state_dict(state)
    teach(resumed, stream.tasks[1])
    pixels = torch.cat([task.train.pixels(torch.arange(3)) for task in stream.tasks])
    assert float(whole.familiarity_of(F.normalize(small_backbone.encode_images(pixels), dim=-1)).own_weights.min()) > 0.1
    assert torch.equal(resumed.logits(pixels, range(5)), whole.logits(pixels, range(5)))


@pytest.mark.parametrize("single", [False, True])
def test_class_incremental_scores_have_each_tasks_texts_and_weight(small_backbone, stream, learned, single):
    learned.scenario = dataclasses.replace(
        stream.scenario, kind="class-incremental", class_names=(*stream.scenario.class_names, "white"),
        templates=(*stream.scenario.templates, stream.scenario.templates[0]), task_of_class=(0, 0, 1, 1, 1, 2),
    )  # fmt: skip
    learned.settings = dataclasses.replace(learned.settings, test_batches="single" if single else "task")
    pixels = torch.cat([stream.tasks[1].train.pixels(torch.arange(2)), stream.tasks[0].train.pixels(torch.arange(1))])
    batches = pixels.split(1 if single else 3)
    expected = []
    for batch in batches:
        features = F.normalize(small_backbone.encode_images(batch), dim=-1)
        densities = learned.gaussians.log_density(features)
        weights = torch.sigmoid(densities / 24 - 1).float()
        own, a = weights.amax(dim=1), int(densities.argmax(dim=1).mode().values)
        with torch.no_grad():
            images = image_features(small_backbone.clip.visual, batch, learned.banks[a].image, Strength(own, own.mean()))
            columns = []
            for c, owner in ((5, None), (1, 0), (3, 1)):  # an unlearned class first
                bank, mean = (
                    learned.banks[a if owner is None else owner],
                    own.mean() if owner is None else weights[:, owner].mean(),
                )
                text = learned.text_features(bank, learned.tokens([c]), mean)
                factor = 1 if owner is None else weights[:, owner]
                columns.append(factor * small_backbone.logit_scale * F.cosine_similarity(images, text))
        expected.append(torch.stack(columns, dim=1))
    torch.testing.assert_close(learned.logits(pixels, [5, 1, 3]), torch.cat(expected), **ROUNDED)


def test_it_says_how_test_batches_are_made_up(small_backbone, stream):
    assert build(small_backbone, stream.scenario).test_batches == TestBatches("task", 256, shuffled=False)
    assert build(small_backbone, stream.scenario, test_batches="single").test_batches is None


def test_before_the_first_task_it_is_zero_shot_clip(small_backbone, stream):
    pixels = stream.tasks[0].train.pixels(torch.arange(4))
    texts = F.normalize(small_backbone.encode_text(stream.scenario.prompts(range(5))), dim=-1)
    expected = small_backbone.logit_scale * F.normalize(small_backbone.encode_images(pixels), dim=-1) @ texts.T
    torch.testing.assert_close(build(small_backbone, stream.scenario).logits(pixels, range(5)), expected, **ROUNDED)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"adapter_rank": 0}, "adapter_rank: choose 1 or more"),
        ({"adapter_rank": 33}, "32 channels allow no more"),
        ({"text_rows": 33}, "32 channels allow no more"),
        ({"adapter_dropout": 1.0}, "a share from 0 to less than 1"),
        ({"image_depth": 3}, "image tower has 2 blocks"),
    ],
)
def test_impossible_settings_are_refused(small_backbone, stream, settings, complaint):
    with pytest.raises(BenchError, match=complaint):
        build(small_backbone, stream.scenario, **settings)


def test_the_mean_of_the_density_is_the_normal_one():
    made = additions()
    z = made.mean[0].expand(1, 2, 3).unsqueeze(2)  # the class token exactly at the mean
    sureness = made.sureness(0, z, Strength(torch.ones(1), torch.ones(())))
    torch.testing.assert_close(sureness[0, :, 0], torch.sigmoid(-(made.variance[0] * 2 * math.pi).log() / 2))
