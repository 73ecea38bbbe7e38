import dataclasses

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError, RunFailure
from bench.system.randomness import Draws
from methods.closed_form import cca_cl
from methods.closed_form.cca_cl import BIRDS, CCACL, SEVEN, CCACLFrozen
from tests.methods.teaching import accuracy, teach

QUICK = {"tuned_epochs": 2, "lr": 1e-3, "batch_size": 4, "statistics_batch": 4, "random_features": 32}


def build(backbone, scenario, kind=CCACL, seed=0, **settings):
    start = QUICK if kind is CCACL else {name: value for name, value in QUICK.items() if name != "tuned_epochs"}
    return kind(kind.Settings(**{**start, **settings}), backbone, scenario, Draws("test", "cca-cl", seed))


def inputs_of(method, split):
    return next(split.batches(method.inputs, len(split)))


def weights_of(module):
    return {name: weights.detach().clone() for name, weights in module.named_parameters()}


BOTH = pytest.mark.parametrize("kind", [CCACL, CCACLFrozen])

# -- few classes ------------------------------------------------------------------------------------------------


@BOTH
def test_a_first_task_of_two_classes_is_answered(small_backbone, make_stream, kind):
    """The released rule finds no direction there, and gives every class the score 0."""
    stream = make_stream(sizes=(2, 2), per_class=10)
    method = teach(build(small_backbone, stream.scenario, kind), stream.tasks[0])
    assert method.image_map.shape[1] == 1
    assert accuracy(method, stream.tasks[0], [0, 1]) == 1
    scores = method.logits(inputs_of(method, stream.tasks[0].train), range(4))
    assert torch.isfinite(scores).all() and bool((scores != 0).all())
    later = teach(method, stream.tasks[1]).logits(inputs_of(method, stream.tasks[1].train), range(4))
    assert bool((later != 0).all()) and accuracy(method, stream.tasks[0], [0, 1]) == 1


@BOTH
def test_a_first_task_of_one_class_leaves_zero_shot_clip(small_backbone, make_stream, kind):
    stream = make_stream(sizes=(1, 2), per_class=8)
    method = teach(build(small_backbone, stream.scenario, kind), stream.tasks[0])
    x = inputs_of(method, stream.tasks[0].train)
    clip = method.clip or small_backbone.clip
    images = F.normalize(clip.encode_image(x) if method.clip else x, dim=-1)
    expected = small_backbone.logit_scale * images @ small_backbone.classifier(stream.scenario.prompts_of(range(3)), clip=clip).T
    torch.testing.assert_close(method.logits(x, range(3)), expected.detach(), rtol=1e-4, atol=1e-4)
    teach(method, stream.tasks[1])
    assert method.image_map.shape[1] >= 1 and torch.isfinite(method.logits(x, range(3))).all()


# -- scores and statistics --------------------------------------------------------------------------------------


@BOTH
def test_before_the_first_task_it_is_zero_shot_clip(small_backbone, make_stream, kind):
    stream = make_stream()
    method = build(small_backbone, stream.scenario, kind)
    assert method.inputs == ("pixels" if kind is CCACL else "features")
    x = F.normalize(stream.tasks[0].train.features(), dim=-1)
    expected = small_backbone.logit_scale * x @ small_backbone.classifier(stream.scenario.prompts_of(range(4))).T
    torch.testing.assert_close(
        method.logits(inputs_of(method, stream.tasks[0].train), range(4)), expected, rtol=1e-4, atol=1e-4
    )


def test_scores_are_cosines_of_places_in_the_common_space(small_backbone, make_stream):
    stream = make_stream(sizes=(3, 2), per_class=8)
    method = teach(build(small_backbone, stream.scenario, CCACLFrozen, temperature=0.5), stream.tasks[0])
    x, found = stream.tasks[0].train.features(), method.found
    vectors, w, b = method.class_vectors.double(), method.frequencies.double(), method.phases.double()
    assert float(b.min()) >= 0 and float(b.max()) <= 2 * torch.pi and float(b.max()) > torch.pi
    images = (32 / 2) ** -0.5 * torch.cos(F.normalize(3.7 * x, dim=-1).double() @ w + b)
    texts = (32 / 2) ** -0.5 * torch.cos(vectors @ w + b)
    a, e = (images - found.image_mean) @ found.image_map, (texts - found.text_mean) @ found.text_map
    expected = torch.stack([F.cosine_similarity(row.unsqueeze(0), e[[4, 0]]) for row in a]) / 0.5
    torch.testing.assert_close(method.logits(3.7 * x, [4, 0]), expected)
    torch.testing.assert_close(found.text_mean, texts[:3].mean(dim=0))  # of images: every class has as many


def test_statistics_are_of_batches_in_a_drawn_order_however_many_are_held(small_backbone, make_stream, monkeypatch):
    stream = make_stream(sizes=(3, 2), per_class=8)
    scores = []
    for rows, size in ((4096, 4), (8, 4), (1, 4), (4096, 24)):
        monkeypatch.setattr(cca_cl, "ROWS_AT_ONCE", rows)
        method = teach(build(small_backbone, stream.scenario, CCACLFrozen, statistics_batch=size), *stream.tasks)
        scores.append(method.logits(stream.tasks[0].train.features(), range(5)))
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[0], scores[2])
    assert not torch.allclose(scores[0], scores[3], atol=1e-2)
    assert method.statistics.counts.tolist() == [8] * 5
    order = Draws("test", "cca-cl", 0).permutation(24, "statistics order", 0)
    z = method.expand(F.normalize(stream.tasks[0].train.features()[order], dim=-1))
    only = teach(build(small_backbone, stream.scenario, CCACLFrozen), stream.tasks[0])
    scatter = sum((part - part.mean(dim=0)).T @ (part - part.mean(dim=0)) for part in z.split(4))
    torch.testing.assert_close(only.statistics.image_scatter.whole(), scatter)


def test_without_random_features_the_statistics_are_of_clip_s_own(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 3), per_class=8)
    method = teach(build(small_backbone, stream.scenario, CCACLFrozen, random_features=0), *stream.tasks)
    assert method.image_map.shape[0] == small_backbone.embedding_width
    torch.testing.assert_close(
        method.statistics.image_mean, F.normalize(stream.joined().train.features(), dim=-1).double().mean(dim=0)
    )


@pytest.mark.parametrize("option", [{"pooled_covariance": True}, {"whiten_text_once": True}, {"sigma": 2.0}, {"energy": 0.7}])
def test_options_change_scores(small_backbone, make_stream, option):
    stream = make_stream(sizes=(3, 3), per_class=8)
    x = stream.tasks[0].train.features()
    ours, other = (
        teach(build(small_backbone, stream.scenario, CCACLFrozen, **chosen), *stream.tasks).logits(x, range(6))
        for chosen in ({}, option)
    )
    assert not torch.allclose(ours, other, atol=1e-2)


def test_templates_and_names_with_underscores(small_backbone, make_stream):
    scenario = make_stream(sizes=(3, 3)).scenario
    method = build(small_backbone, scenario, CCACLFrozen, templates=SEVEN, keep_underscores=True)
    texts = [template.format("dark_gray") for template in SEVEN]
    expected = F.normalize(F.normalize(small_backbone.encode_text(texts), dim=-1).mean(dim=0), dim=0)
    torch.testing.assert_close(method.class_vectors[4], expected)


# -- tuning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_temperature", [True, False])
def test_tuning_is_sgd_on_all_of_clip_with_a_text_for_every_image(small_backbone, make_stream, log_temperature):
    """Against torch's own optimiser and scheduler, and a text pass for every image."""
    stream = make_stream(sizes=(3, 2))
    task, draws = stream.tasks[0], Draws("test", "cca-cl", 0)
    clip = small_backbone.trainable_copy().requires_grad_(True)
    optimiser = torch.optim.SGD(clip.parameters(), lr=1e-3, momentum=0.9, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=2)
    for epoch in range(2):
        for rows in draws.permutation(15, "batch order", 0, epoch).split(4):
            texts = [f"a photo of a {stream.scenario.class_names[c]}." for c in task.train.labels[rows]]
            images = F.normalize(clip.encode_image(task.train.pixels(rows)), dim=-1)
            words = F.normalize(clip.encode_text(small_backbone.tokenize(texts)), dim=-1)
            scale = clip.logit_scale if log_temperature else clip.logit_scale.exp()
            s, own = scale * images @ words.T, torch.arange(len(rows))
            optimiser.zero_grad()
            ((F.cross_entropy(s, own) + F.cross_entropy(s.T, own)) / 2).backward()
            optimiser.step()
        scheduler.step()
    method = build(small_backbone, stream.scenario, log_temperature=log_temperature)
    method.tune(task)
    tuned = weights_of(method.clip)
    for name, weights in weights_of(clip).items():
        torch.testing.assert_close(tuned[name], weights, rtol=1e-4, atol=1e-6, msg=name)
    assert not torch.equal(tuned["logit_scale"], small_backbone.clip.logit_scale)


def test_after_the_first_task_clip_stays_as_it_is_and_the_shared_one_always(small_backbone, make_stream):
    stream = make_stream()
    shared = weights_of(small_backbone.clip)
    method = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    tuned, vectors = weights_of(method.clip), method.class_vectors.clone()
    assert not torch.equal(tuned["visual.class_embedding"], shared["visual.class_embedding"])
    torch.testing.assert_close(vectors, small_backbone.classifier(stream.scenario.prompts_of(range(4)), clip=method.clip))
    teach(method, stream.tasks[1])
    assert all(torch.equal(tuned[name], weights) for name, weights in weights_of(method.clip).items())
    assert all(torch.equal(shared[name], weights) for name, weights in weights_of(small_backbone.clip).items())
    assert torch.equal(vectors, method.class_vectors)


def test_a_limit_on_training_images_cuts_the_tuning(small_backbone, make_stream):
    stream = make_stream()
    passes = {}
    for limit in (None, 8):
        method = build(small_backbone, dataclasses.replace(stream.scenario, images_per_task=limit))
        before = small_backbone.image_passes
        method.tune(stream.tasks[0])
        passes[limit] = small_backbone.image_passes - before
    assert passes == {None: 20, 8: 8}


def test_views_of_the_tuning_are_cropped_and_mirrored_and_statistics_are_of_whole_images(small_backbone, make_stream):
    stream = make_stream()
    plain, other = (
        build(small_backbone, stream.scenario, lr=0.0, weight_decay=0.0, **views)
        for views in ({}, {"crop_scale": 0.3, "mirrored_view": True})
    )
    shown = {plain: [], other: []}
    for method in shown:
        loss = method.contrastive_loss
        method.contrastive_loss = lambda pixels, *rest: shown[method].append(pixels) or loss(pixels, *rest)
        teach(method, stream.tasks[0])
    assert not torch.allclose(torch.cat(shown[plain]), torch.cat(shown[other]), atol=1e-2)
    torch.testing.assert_close(plain.statistics.image_mean, other.statistics.image_mean)


def test_a_run_that_diverges_is_named(small_backbone, make_stream):
    stream = make_stream()
    with pytest.raises(RunFailure, match="not finite"):
        teach(build(small_backbone, stream.scenario, lr=1e30), stream.tasks[0])


# -- as a method ------------------------------------------------------------------------------------------------


@BOTH
def test_it_learns_a_stream(small_backbone, make_stream, kind):
    stream = make_stream(sizes=(3, 3), per_class=12)
    method = teach(build(small_backbone, stream.scenario, kind, random_features=256), *stream.tasks)
    assert all(accuracy(method, task, range(6)) > 0.8 for task in stream.tasks)


@BOTH
def test_resumed_after_any_task_it_ends_with_the_same_numbers(small_backbone, make_stream, kind):
    stream = make_stream(sizes=(2, 1, 2))
    whole, states = build(small_backbone, stream.scenario, kind), []
    x = inputs_of(whole, stream.joined().train)
    for task in stream.tasks:
        teach(whole, task)
        states.append({name: value.clone() for name, value in whole.state_dict().items()})
    for done, state in enumerate(states, start=1):
        resumed = build(small_backbone, stream.scenario, kind)
        resumed.load_state_dict(state)
        teach(resumed, *stream.tasks[done:])
        assert torch.equal(resumed.logits(x, range(5)), whole.logits(x, range(5)))


def test_without_training_it_is_cca_cl_with_no_epoch_of_tuning(small_backbone, make_stream):
    stream = make_stream(sizes=(3, 2), per_class=8)
    frozen = teach(build(small_backbone, stream.scenario, CCACLFrozen), *stream.tasks)
    untuned = teach(build(small_backbone, stream.scenario, tuned_epochs=0), *stream.tasks)
    x = stream.tasks[1].train.features()
    assert untuned.clip is None and torch.equal(frozen.logits(x, range(5)), untuned.logits(x, range(5)))
    assert not list(frozen.parameters())


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0}, {"statistics_batch": 0}, {"tuned_epochs": -1}, {"random_features": -1}, {"sigma": 0.0}, {"ridge": 0.0},
        {"eigenvalue_floor": 0.0}, {"energy": 0.0}, {"energy": 1.1}, {"temperature": 0.0}, {"crop_scale": 0.0},
        {"templates": ("a photo of a {}.", "no place")},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BenchError):
        CCACL.Settings(**wrong)


def test_authors_settings():
    cifar, imagenet, rendered, birds = (
        CCACL.settings_for(f"{name}-10x10") for name in ("cifar100", "imagenet100", "imagenet-r", "cub200")
    )
    assert (cifar.batch_size, cifar.templates, cifar.tuned_epochs, cifar.lr, cifar.weight_decay) == (64, (), 6, 5e-6, 0.05)
    assert (imagenet.batch_size, imagenet.templates, imagenet.crop_scale, imagenet.mirrored_view) == (32, SEVEN, 0.08, True)
    assert (rendered.batch_size, rendered.templates, rendered.keep_underscores) == (8, SEVEN, True)
    assert (birds.batch_size, birds.templates, birds.statistics_batch) == (8, BIRDS, 64)
    assert CCACLFrozen.settings_for("imagenet-r-10x20") == dataclasses.replace(
        CCACLFrozen.Settings(), batch_size=8, templates=SEVEN, keep_underscores=True
    )
    assert CCACLFrozen.Settings().tuned_epochs == 0
