"""CLAP: every equation against a slow transcription, and what training, memory and scoring keep to."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.learning.test_batches import TestBatches
from bench.system.randomness import Draws
from methods.clap.clap import Clap, ClapSettings
from methods.clap.clap_coop import ClapCoOp, ClapCoOpSettings
from methods.clap.clap_novi import ClapCoOpNoVI, ClapCoOpNoVISettings, ClapNoVI, ClapNoVISettings
from methods.shared.selection import select
from tests.methods.clap import literal_clap as literal

QUICK = dict(
    epochs=1, batch_size=4, train_samples=2, test_samples=3, attention_width=16, attention_heads=2, mirrored_view=False
)
KINDS = {Clap: ClapSettings, ClapNoVI: ClapNoVISettings, ClapCoOp: ClapCoOpSettings, ClapCoOpNoVI: ClapCoOpNoVISettings}


def build(stream, backbone, kind=Clap, seed=0, budget=None, **settings) -> Clap:
    values = QUICK | ({"context_length": 2} if issubclass(kind, ClapCoOp) else {}) | settings
    return kind(KINDS[kind](**values), backbone, replace(stream.scenario, **(budget or {})), Draws("test", "clap", seed))


def teach(method, tasks):
    for task in tasks:
        method.train()
        method.grow(task)
        method.learn(task)
        method.eval()
    return method


def disturbed(method):
    """The same method with adapters and attention far from their start, so that a wrong term shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in method.parameters():
            weights += 0.1 * torch.randn(weights.shape, generator=generator)
    return method


def batch_of(stream, count=3):
    return torch.cat([task.train.features()[:count] for task in stream.tasks])


# -- equations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", ["", "balanced "])
def test_losses_equal_their_transcription(small_backbone, make_stream, kind, phase):
    stream = make_stream(sizes=(2, 1, 2))
    method = disturbed(teach(build(stream, small_backbone, kind), stream.tasks))
    assert method.training is False  # no dropout
    images, labels = batch_of(stream, 1), torch.tensor([0, 2, 4])
    text = method.text_of(method.seen)
    terms = method.terms(text, images, labels, phase, 2, 0)
    noise = method.draws.normal((2, 5, 24), "noise", phase, 2, 0)
    inputs = method.training_inputs(text, images)
    torch.testing.assert_close(inputs.images, images / images.norm(dim=-1, keepdim=True))
    concerned = [0, 1, 2] if phase else [2]
    prompts = hand_made(small_backbone, stream)
    expected = literal.losses(method, inputs.images, inputs.text, text.tasks, noise, labels, prompts, concerned)
    torch.testing.assert_close(torch.stack([torch.as_tensor(t) for t in terms[:3]]), torch.stack(expected), rtol=2e-4, atol=1e-5)
    assert terms.penalty == 0.0
    torch.testing.assert_close(method.loss(text, images, labels, phase, 2, 0), sum(expected), rtol=2e-4, atol=1e-5)


def hand_made(backbone, stream) -> list[torch.Tensor]:
    """(P, d) unit text features of each class."""
    scenario = stream.scenario
    return [
        F.normalize(backbone.encode_text([t.format(name) for t in templates]), dim=-1)
        for name, templates in zip(scenario.class_names, scenario.templates)
    ]


@pytest.mark.parametrize("prior", ["data-driven", "language-aware"])
def test_priors_equal_their_transcription_from_the_second_task_on(small_backbone, make_stream, prior):
    stream = make_stream()
    method = disturbed(teach(build(stream, small_backbone, prior=prior, prior_weight=1.0), stream.tasks))
    images, labels = batch_of(stream, 2), torch.tensor([0, 1, 2, 3])
    text = method.text_of(method.seen)
    found = method.terms(text, images, labels, "", 1, 5).prior
    prompts, inputs = hand_made(small_backbone, stream), method.training_inputs(text, images)
    noise = method.draws.normal((2, 4, 24), "noise", "", 1, 5)
    chosen = method.draws.permutation(4, "prior images", "", 1, 5)[:3]  # ceil(0.67 * 4)
    partial, _ = literal.inner(method, inputs.images[chosen], inputs.text, text.tasks, noise)

    def prior_of(k, task):
        return literal.posterior(method, partial[k] if prior == "data-driven" else prompts[k].mean(dim=0), task)

    expected = literal.losses(
        method, inputs.images, inputs.text, text.tasks, noise, labels, prompts, [1], prior_of=prior_of
    )[2]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert found.item() > 1e-3


def test_the_data_driven_prior_can_be_kept_out_of_the_consolidation(small_backbone, make_stream):
    stream = make_stream()
    given = dict(images=batch_of(stream, 2), columns=torch.tensor([0, 1, 2, 3]), phase="balanced ", task=1, step=0)

    method = disturbed(teach(build(stream, small_backbone), stream.tasks))

    @torch.no_grad()
    def prior(**settings):
        method.settings = replace(method.settings, **settings)
        return float(method.terms(method.text_of(method.seen), **given).prior)

    standard = prior()
    assert prior(prior="data-driven", prior_in_consolidation=False) == pytest.approx(standard)
    assert prior(prior_in_consolidation=True) != pytest.approx(standard, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unseen", ["none", "newest"])
def test_scores_of_learned_and_unlearned_classes_equal_their_transcription(small_backbone, make_stream, kind, unseen):
    stream = make_stream(sizes=(2, 1, 2))
    method = disturbed(teach(build(stream, small_backbone, kind, unseen_adapter=unseen), stream.tasks[:2]))
    method.store_class_vectors()
    batch, tasks = batch_of(stream, 1), torch.tensor([0, 0, 1, 2, 2])
    x, h = batch / batch.norm(dim=-1, keepdim=True), method.class_vectors
    noise = torch.cat([method.draws.normal((3, n, 24), "test noise", t) for t, n in enumerate((2, 1, 2))], dim=1)
    adapters = tasks.clamp(max=1)  # the newest for the classes to come
    u = h + literal.attention(method.head.attention.layer, h, x, tasks)
    expected = torch.zeros(3, 5)
    for k in range(5):
        mu, sigma = literal.posterior(method, u[k], int(adapters[k]))
        z = mu if sigma is None else mu + sigma * noise[:, k].mean(dim=0)
        expected[:, k] = method.backbone.logit_scale * (x @ (u[k] if unseen == "none" and k >= 3 else u[k] + z))
    torch.testing.assert_close(method.logits(batch, [4, 0, 2, 3, 1]), expected[:, [4, 0, 2, 3, 1]], rtol=1e-4, atol=1e-3)


def test_sampled_logits_equal_their_transcription_and_average_to_the_logits(small_backbone, make_stream):
    stream = make_stream()
    method = disturbed(teach(build(stream, small_backbone), stream.tasks))
    batch, classes = batch_of(stream, 2), [0, 1, 2, 3]
    noise = torch.cat([method.draws.normal((3, 2, 24), "test noise", t) for t in range(2)], dim=1)
    x = batch / batch.norm(dim=-1, keepdim=True)
    expected = literal.sampled_logits(method, x, method.class_vectors, torch.tensor([0, 0, 1, 1]), noise)
    found = method.sampled_logits(batch, classes)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.mean(dim=0), method.logits(batch, classes), rtol=1e-4, atol=1e-4)


def test_no_test_samples_mean_the_mean_of_the_distribution(small_backbone, make_stream):
    stream = make_stream()
    method = disturbed(teach(build(stream, small_backbone, test_samples=0), stream.tasks))
    many = build(stream, small_backbone, test_samples=20000)
    teach(many, stream.tasks)
    many.load_state_dict(method.state_dict())
    batch = batch_of(stream)
    difference = (method.logits(batch, [0, 3]) - many.logits(batch, [0, 3])).abs().max()
    assert 0 < float(difference) < 0.1 * method.backbone.logit_scale


def test_language_aware_start(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 1))
    method = build(stream, small_backbone)
    for task in stream.tasks:
        method.grow(task)
        method.seen = torch.arange(task.classes[-1] + 1)
        method.start_task(task)
        expected = torch.zeros(2, 24, 24)
        for e in hand_made(small_backbone, stream)[: len(method.seen)]:  # all classes seen so far
            expected[0] += torch.outer(e.mean(dim=0), e.mean(dim=0)) / 24
            expected[1] += torch.outer(e.var(dim=0), e.var(dim=0)) / 24
        torch.testing.assert_close(method.head.adapters.means[-1][1].weight.detach(), expected[0])
        torch.testing.assert_close(method.head.adapters.deviations[-1][1].weight.detach(), expected[1])
    single = build(stream, small_backbone, budget={"templates": (("a {}.",),) * 3})
    teach(single, stream.tasks[:1])
    assert all(bool(torch.isfinite(value).all()) for value in single.state_dict().values())


def test_a_task_s_classes_do_not_see_those_of_other_tasks(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 1, 2))
    method = teach(build(stream, small_backbone), stream.tasks)
    text, images, tasks = method.class_vectors, F.normalize(batch_of(stream), dim=-1), torch.tensor([0, 0, 1, 2, 2])
    alone = torch.cat([method.head.attend(text[tasks == t], images, tasks[tasks == t]) for t in range(3)])
    torch.testing.assert_close(method.head.attend(text, images, tasks), alone)


def test_task_tokens_serve_their_own_task_only(small_backbone, make_stream):
    stream = make_stream()
    method = teach(build(stream, small_backbone, task_tokens=True), stream.tasks[:1])
    images, tasks = F.normalize(batch_of(stream), dim=-1), torch.tensor([0, 0, 1, 1])
    before = method.head.attend(method.class_vectors, images, tasks)
    with torch.no_grad():
        method.head.tokens[0] += 1.0
    after = method.head.attend(method.class_vectors, images, tasks)
    assert not torch.allclose(before[:2], after[:2]) and torch.allclose(before[2:], after[2:])


# -- phases -----------------------------------------------------------------------------------------------------


def parts(method) -> dict[str, torch.Tensor]:
    """Parameters by what they belong to, flattened."""
    named = {name: weights.detach().flatten() for name, weights in method.named_parameters()}
    split = {"attention": "attention.", "old": ".0.1.", "new": ".1.1.", "context": "context"}
    return {
        key: torch.cat([v for name, v in named.items() if mark in name and ("adapters" in name) == (key in ("old", "new"))])
        for key, mark in split.items()
        if any(mark in name for name in named)
    }


def test_what_each_phase_trains(small_backbone, make_stream):
    stream = make_stream()
    method = teach(build(stream, small_backbone, ClapCoOp, budget={"exemplars_per_class": 2}), stream.tasks[:1])
    moments, fit = [], method.fit

    def watched(*arguments, **named):
        before = parts(method)
        fit(*arguments, **named)
        moments.append({name for name, weights in parts(method).items() if not torch.equal(weights, before[name])})

    method.fit = watched
    teach(method, stream.tasks[1:])
    assert moments == [{"attention", "new", "context"}, {"old", "new", "context"}]
    assert all(weights.requires_grad for weights in method.parameters())


def test_the_attention_can_be_trained_in_the_consolidation(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, attention_in_consolidation=True)
    assert {id(p) for p in method.head.attention.parameters()} <= {id(p) for p in method.trained_parameters("balanced ")}


def phases(stream, backbone, budget, **settings) -> list[tuple[str, int, int]]:
    """(phase, images in the training set, steps) of each fit over the stream."""
    method, found = build(stream, backbone, budget=budget, **settings), []
    fit = method.fit

    def watched(training, epochs, peak, task, scenario=None, phase=""):
        rates = fit(training, epochs, peak, task, scenario, phase)
        found.append((phase, len(training.labels), len(rates)))
        return rates

    method.fit = watched
    teach(method, stream.tasks)
    return found


def test_without_exemplars_there_is_no_consolidation(small_backbone, make_stream):
    assert phases(make_stream(), small_backbone, {}) == [("", 10, 3), ("", 10, 3)]


def test_consolidation_sees_the_balanced_exemplars_of_old_and_new_classes(small_backbone, make_stream):
    found = phases(make_stream(), small_backbone, {"exemplars_total": 9})
    assert found == [("", 10, 3), ("", 10 + 8, 5), ("balanced ", 8, 4)]  # 9 // 2 = 4 a class, then 9 // 4 = 2
    assert phases(make_stream(), small_backbone, {"exemplars_total": 9}, balanced_epochs=0) == [("", 10, 3), ("", 18, 5)]


def test_both_phases_share_the_compute_budget(small_backbone, make_stream):
    found = phases(make_stream(), small_backbone, {"exemplars_per_class": 2, "images_per_task": 17}, epochs=3)
    # first task: 17 of 30 images; second: 42 + 16 images wanted, 17 * 42 // 58 = 12 and 17 * 16 // 58 = 4
    assert found == [("", 10, 5), ("", 14, 3), ("balanced ", 8, 1)]


def test_the_rates_of_both_phases(small_backbone, make_stream):
    method = build(make_stream(), small_backbone)
    falling = 1e-3 + 0.999 * (1 + math.cos(math.pi / 7)) / 2
    assert method.schedule(1.0, 10, "")[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, falling])
    assert method.schedule(1.0, 4, "balanced ")[0] == 1.0
    rates = []
    method._optimiser = lambda rate: rates.append(rate) or torch.optim.SGD(method.parameters(), lr=rate)
    teach(method, make_stream().tasks[:1])
    assert rates == pytest.approx([1e-3 * 4 / 20])


def test_old_adapters_are_kept_and_gradients_flow_through_them(small_backbone, make_stream):
    stream = make_stream()
    method = disturbed(teach(build(stream, small_backbone), stream.tasks))
    with method._training_only(method.trained_parameters("")):
        images, labels = batch_of(stream)[:3], torch.tensor([0, 0, 1])  # of the first task only
        terms = method.terms(method.text_of(method.seen), images, labels, "", 1, 0)
        terms.cross_entropy.backward()
        assert method.head.adapters.means[0][1].weight.grad is None
        assert float(method.head.attention.layer.linear2.weight.grad.abs().max()) > 0
    assert method.head.adapters.means[0][1].weight.requires_grad


def test_training_encodes_no_image_when_the_features_are_stored(small_backbone, make_stream):
    stream = make_stream()
    for task in stream.tasks:
        task.train.features()
    passes = small_backbone.image_passes
    method = teach(build(stream, small_backbone, budget={"exemplars_per_class": 2}), stream.tasks)
    method.logits(batch_of(stream), [0, 1, 2, 3])
    assert small_backbone.image_passes == passes


@pytest.mark.parametrize(
    "switches",
    [
        {"variational": False},
        {"visual_attention": False},
        {"adapter_per_task": False},
        {"language_aware_start": False},
        {"regularisation": 0.0},
        {"balanced_epochs": 0},
        {"orthogonality": 5.0},
    ],
)
def test_switches_learn_and_change_the_outcome(small_backbone, make_stream, switches):
    stream = make_stream()
    batch = batch_of(stream)
    scores = []
    for settings in ({}, switches):
        method = build(stream, small_backbone, budget={"exemplars_per_class": 2}, learning_rate=0.05, **settings)
        scores.append(teach(method, stream.tasks).logits(batch, [0, 1, 2, 3]))
        assert bool(torch.isfinite(scores[-1]).all())
    assert not torch.allclose(*scores)
    assert len(method.head.adapters) == (1 if switches.get("adapter_per_task") is False else 2)


def test_without_exemplars_classes_of_the_past_compete_only_in_the_seen_label_space(small_backbone, make_stream):
    stream, scores = make_stream(), []
    for label_space in ("seen", "present"):
        method = build(stream, small_backbone, label_space=label_space, learning_rate=0.05)
        classes, terms = [], method.terms
        method.terms = lambda text, *rest: classes.append(text.classes.tolist()) or terms(text, *rest)
        scores.append(teach(method, stream.tasks).logits(batch_of(stream), [0, 1, 2, 3]))
        assert classes[-1] == ([0, 1, 2, 3] if label_space == "seen" else [2, 3])
    assert not torch.allclose(*scores)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_the_task(small_backbone, make_stream, kind):
    stream = make_stream(sizes=(4,), per_class=8)
    method = build(stream, small_backbone, kind, epochs=20, learning_rate=0.02, test_samples=0, train_samples=10)
    train = stream.tasks[0].train
    before = F.cross_entropy(method.logits(train.features(), range(4)), train.labels)
    teach(method, stream.tasks)
    assert float(F.cross_entropy(method.logits(train.features(), range(4)), train.labels)) < 0.8 * float(before)


# -- scoring ----------------------------------------------------------------------------------------------------


def test_before_learning_it_is_zero_shot(small_backbone, make_stream):
    stream = make_stream()
    batch = batch_of(stream)
    text = small_backbone.classifier(stream.scenario.prompts_of([3, 0]))
    expected = small_backbone.logit_scale * F.normalize(batch, dim=-1) @ text.T
    torch.testing.assert_close(build(stream, small_backbone).logits(batch, [3, 0]), expected)


def test_scores_depend_on_the_batch_but_not_on_what_was_scored_before(small_backbone, make_stream):
    stream = make_stream()
    method = disturbed(teach(build(stream, small_backbone), stream.tasks))
    batch = batch_of(stream)
    together = method.logits(batch, [0, 1, 2, 3])
    alone = torch.cat([method.logits(row[None], [0, 1, 2, 3]) for row in batch])
    assert not torch.allclose(together, alone, rtol=1e-4, atol=1e-4)
    assert torch.equal(method.logits(batch, [0, 1, 2, 3]), together)
    torch.testing.assert_close(method.logits(batch, [2]), together[:, [2]])


@pytest.mark.parametrize(
    ("composition", "expected"), [("task", "task, 4 images"), ("mixed", "mixed, 4 images"), ("single", "single images")]
)
def test_the_composition_of_test_batches_is_a_setting(small_backbone, make_stream, composition, expected):
    method = build(make_stream(), small_backbone, test_batches=composition)
    assert method.test_batches == TestBatches(composition, 4)
    assert str(method.test_batches) == expected


@pytest.mark.parametrize("sizes", [(1, 1), (1, 3, 2)])
@pytest.mark.parametrize("kind", ["class-incremental", "task-incremental"])
def test_tasks_of_one_class_and_of_different_sizes(small_backbone, make_stream, sizes, kind):
    stream = make_stream(kind, sizes, per_class=1)
    method = teach(build(stream, small_backbone, budget={"exemplars_per_class": 1}), stream.tasks)
    logits = method.logits(batch_of(stream, 1), range(sum(sizes)))
    assert logits.shape == (len(sizes), sum(sizes)) and bool(torch.isfinite(logits).all())


def test_a_context_of_its_own_leaves_unseen_classes_alone(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, ClapCoOp, class_specific=True)
    vectors = method.class_vectors.clone()
    teach(method, stream.tasks[:1])
    assert torch.equal(method.class_vectors[2:], vectors[2:]) and not torch.equal(method.class_vectors[:2], vectors[:2])
    shared = teach(build(stream, small_backbone, ClapCoOp), stream.tasks[:1])
    assert not torch.equal(shared.class_vectors[2:], vectors[2:])


# -- exemplars and resume ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["herding", "entropy", "energy", "variance", "distance"])
def test_exemplars_are_those_that_the_rule_picks_from_the_model_s_sampled_logits(small_backbone, make_stream, rule):
    stream = make_stream(per_class=5)
    method = build(stream, small_backbone, exemplar_rule=rule, batch_size=8, balanced_epochs=0, budget={"exemplars_per_class": 2})
    pool = torch.zeros(0, 1, 24), torch.zeros(0, dtype=torch.long)
    for task in stream.tasks:
        teach(method, [task])
        images = torch.cat([pool[0], task.train.features()[:, None]])
        labels = torch.cat([pool[1], task.train.labels])
        sampled = [method.sampled_logits(part[:, 0], method.seen.tolist()) for part in images.split(8)]
        kept = torch.from_numpy(select(rule, torch.cat(sampled, dim=1).transpose(0, 1).numpy(), labels.numpy(), 2))
        pool = images[kept], labels[kept]
        assert torch.equal(method.memory.images, pool[0]) and torch.equal(method.memory.labels, pool[1])


def test_the_released_mix_up_of_samples_and_images_chooses_others(small_backbone, make_stream):
    stream = make_stream(sizes=(4,), per_class=8)
    kept = [
        teach(
            build(
                stream, small_backbone, exemplar_rule="energy", selection_as_released=released, batch_size=16,
                budget={"exemplars_per_class": 3},
            ),
            stream.tasks,
        ).memory.images
        for released in (False, True)
    ]  # fmt: skip
    assert kept[0].shape == kept[1].shape and not torch.equal(*kept)


@pytest.mark.parametrize("rule", ["first", "random", "energy"])
@pytest.mark.parametrize("kind", [Clap, ClapCoOp])
def test_resume_after_any_task_keeps_scores_and_exemplars(small_backbone, make_stream, rule, kind):
    stream = make_stream(sizes=(2, 1, 2))
    given = dict(kind=kind, exemplar_rule=rule, attention_dropout=0.3, budget={"exemplars_total": 8}, mirrored_view=True)
    batch, states = batch_of(stream), []
    whole = build(stream, small_backbone, **given)
    for task in stream.tasks:
        teach(whole, [task])
        states.append({name: value.clone() for name, value in whole.state_dict().items()})
    for done in (1, 2):
        resumed = build(stream, small_backbone, **given)
        for task in stream.tasks[:done]:
            resumed.grow(task)
        resumed.load_state_dict(states[done - 1])
        torch.manual_seed(done)  # somebody else's random numbers
        teach(resumed, stream.tasks[done:])
        assert torch.equal(resumed.logits(batch, range(5)), whole.logits(batch, range(5)))
        assert torch.equal(resumed.memory.images, whole.memory.images)
        assert torch.equal(resumed.memory.labels, whole.memory.labels)
    assert whole.exemplar_bytes() == 5 * 2 * 24 * 4  # one of each class, two views


def test_another_seed_gives_other_numbers(small_backbone, make_stream):
    stream = make_stream()
    scores = [teach(build(stream, small_backbone, seed=s), stream.tasks).logits(batch_of(stream), [0, 1]) for s in (0, 1)]
    assert not torch.equal(*scores)


@pytest.mark.parametrize(
    "settings",
    [
        {"train_samples": 0},
        {"test_samples": -1},
        {"exemplar_rule": "variance", "test_samples": 1},
        {"exemplar_rule": "variance", "variational": False},
        {"warm_up": 1.5},
        {"regularisation": -1.0},
        {"attention_heads": 5},
    ],
)
def test_settings_that_make_no_sense_are_refused(small_backbone, make_stream, settings):
    with pytest.raises(BenchError):
        build(make_stream(), small_backbone, **settings)
