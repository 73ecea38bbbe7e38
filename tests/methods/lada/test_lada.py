import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError, RunFailure
from bench.streams.stream import Scenario
from bench.system.randomness import Draws
from methods.lada import lada
from methods.lada.lada import LADA, looks_learned
from methods.shared.parallel_adapters import ParallelAdapters
from tests.methods.teaching import accuracy, teach

QUICK = {
    "epochs": 3, "batch_size": 4, "units": 3, "components": 2, "bottleneck": 4, "crop_scale": 1.0, "mirrored_view": False,
}  # fmt: skip


def build(backbone, scenario, seed=0, **settings):
    return LADA(LADA.Settings(**{**QUICK, **settings}), backbone, scenario, Draws("test", "lada", seed))


def named(stream, *names) -> Scenario:
    """The stream's scenario with other class names."""
    return dataclasses.replace(stream.scenario, class_names=names)


# -- scores -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [None, "a photo of a {}."])
def test_before_the_first_task_it_is_zero_shot_clip_with_one_prompt(small_backbone, make_stream, template):
    stream = make_stream(sizes=(2, 3))
    method, x = build(small_backbone, stream.scenario, template=template), stream.tasks[0].train.features()
    text = small_backbone.classifier(stream.scenario.prompts_of(range(5), "a photo of a {}."))  # the first of the stream's, too
    torch.testing.assert_close(method.logits(x, range(5)), small_backbone.logit_scale * F.normalize(x, dim=-1) @ text.T)


def test_learned_classes_add_their_memory_to_the_text_of_their_task(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2))
    method = teach(build(small_backbone, stream.scenario, alpha=0.7, beta=1.3), *stream.tasks)
    x, classes = stream.tasks[1].train.features(), [3, 0]
    found = method.logits(x, classes)
    for column, c in enumerate(classes):
        for row, f in enumerate(F.normalize(x, dim=1)):
            text = small_backbone.logit_scale * F.cosine_similarity(f, method.kept_texts[c], dim=0)
            remembered = sum(torch.exp(-1.3 * (1 - f @ w)) for w in method.memory[c])
            torch.testing.assert_close(found[row, column], text + 0.7 * remembered, rtol=1e-4, atol=1e-4)


def test_unlearned_classes_alone_are_scored_by_zero_shot_clip(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 3))
    untrained, x = build(small_backbone, stream.scenario), stream.tasks[1].train.features()
    before = untrained.logits(x, [4, 2])
    assert torch.equal(teach(untrained, stream.tasks[0]).logits(x, [4, 2]), before)


def test_the_text_score_decides_whether_an_image_gets_a_learned_class(small_backbone, make_stream):
    stream = make_stream(sizes=(3, 3), per_class=12)
    method = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    x, every_class = torch.cat([task.train.features() for task in stream.tasks]), [5, 0, 4, 1, 3, 2]
    learned = torch.tensor([c < 3 for c in every_class])
    unit = F.normalize(x, dim=1)
    texts = F.normalize(torch.cat([method.kept_texts, method.frozen_texts[3:]]), dim=1)[every_class]
    text = small_backbone.logit_scale * unit @ texts.T
    gate = learned[text.argmax(dim=1)]
    assert 0 < int(gate.sum()) < len(x)
    found, plain = method.logits(x, every_class), method.logits(x, [0, 1, 2])
    torch.testing.assert_close(found[~gate], text[~gate], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[gate][:, learned], plain[gate][:, [0, 1, 2]], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[gate][:, ~learned], text[gate][:, ~learned] - 1000, rtol=1e-4, atol=1e-3)
    assert bool(learned[found.argmax(dim=1)].equal(gate))
    whole = build(small_backbone, stream.scenario, unseen_penalty=1e6)
    whole.load_state_dict(method.state_dict())
    assert torch.equal(whole.logits(x, every_class).argmax(dim=1), found.argmax(dim=1))  # the authors' number, same answers
    blurred = whole.logits(x, every_class)[gate][:, ~learned]
    assert len((blurred * 16).frac().unique()) < len(found[gate][:, ~learned].frac().unique()) / 4


def test_with_the_selector_zero_shot_clip_decides(small_backbone, make_stream):
    stream = make_stream(sizes=(3, 3), per_class=12)
    method = teach(build(small_backbone, stream.scenario, selector=True), stream.tasks[0])
    x = torch.cat([task.train.features() for task in stream.tasks])
    zero_shot = build(small_backbone, stream.scenario).logits(x, range(6))
    gate, found = zero_shot.argmax(dim=1) < 3, method.logits(x, range(6))
    assert 0 < int(gate.sum()) < len(x)
    torch.testing.assert_close(found[~gate], zero_shot[~gate])
    torch.testing.assert_close(found[gate][:, :3], method.logits(x[gate], range(3)))
    assert not found[gate][:, 3:].any()


# -- classes of one name in two data sets -----------------------------------------------------------------------

SHARED = ("red", "green", "red", "blue")  # "red" is learned by the first task, and again by the second


def test_while_neither_namesake_is_learned_their_scores_are_equal_and_the_first_is_predicted(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2), per_class=12)
    method = build(small_backbone, named(stream, *SHARED))
    scores = method.logits(stream.joined().train.features(), range(4))
    assert torch.equal(scores[:, 0], scores[:, 2]) and not torch.equal(scores[:, 0], scores[:, 1])
    assert 2 not in scores.argmax(dim=1).tolist()
    learned = teach(build(small_backbone, named(stream, "green", "blue", "red", "red")), stream.tasks[0])
    scores = learned.logits(stream.joined().train.features(), range(4))
    assert torch.equal(scores[:, 2], scores[:, 3])  # after a task, too


def test_a_tie_between_a_learned_class_and_its_unlearned_namesake_goes_to_the_learned():
    scores = torch.tensor([[1.0, 3.0, 3.0], [4.0, 2.0, 2.0], [1.0, 2.0, 2.5]])
    assert looks_learned(scores, torch.tensor([False, True, False])).flatten().tolist() == [True, False, False]
    assert looks_learned(scores, torch.tensor([True, False, True])).flatten().tolist() == [True, True, True]


def test_once_the_first_is_learned_images_like_its_own_are_not_given_to_its_unlearned_namesake(small_backbone, make_stream):
    """An image of the namesake that looks like the learned class is sent to the learned ones, whatever the order."""
    stream = make_stream(sizes=(2, 2), per_class=12)
    method = teach(build(small_backbone, named(stream, *SHARED), epochs=30, lr=0.01), stream.tasks[0])
    alike = stream.tasks[0].train.features()[stream.tasks[0].train.labels == 0]
    for every_class in ([0, 1, 2, 3], [3, 2, 1, 0]):
        scores = method.logits(alike, every_class)
        given = torch.tensor(every_class)[scores.argmax(dim=1)]
        assert given.tolist().count(0) >= 11 and 2 not in given.tolist()
        assert float(scores[given == 0][:, every_class.index(2)].max()) < -500
    assert torch.equal(method.logits(alike, [2]), build(small_backbone, named(stream, *SHARED)).logits(alike, [2]))


def test_when_both_are_learned_each_has_its_own_text_and_memory(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2), per_class=12)
    method = teach(build(small_backbone, named(stream, *SHARED), epochs=30, lr=0.01), *stream.tasks)
    assert not torch.allclose(method.kept_texts[0], method.kept_texts[2])
    assert not torch.allclose(method.memory[0], method.memory[2])
    own = {c: stream.tasks[c // 2].train for c in (0, 2)}
    for c, other in ((0, 2), (2, 0)):  # images of either are told from its namesake
        scores = method.logits(own[c].features()[own[c].labels == c], [c, other])
        assert float((scores[:, 0] > scores[:, 1]).float().mean()) > 0.9


# -- training ---------------------------------------------------------------------------------------------------


def test_a_later_task_is_one_cycle_of_adamw_on_images_and_replayed_features(small_backbone, make_stream):
    """Against a loop of its own, on torch's optimiser and scheduler, with the same draws."""
    stream = make_stream(sizes=(2, 2), per_class=6)
    method = teach(build(small_backbone, stream.scenario, replay_weight=9.0), stream.tasks[0])
    mixtures, old_text, old_memory = method.mixtures, method.kept_texts.clone(), method.memory.detach().clone()
    means, deviations, shares = mixtures.means.clone(), mixtures.variances.sqrt().clone(), mixtures.weights.clone()
    task, draws, clip = stream.tasks[1], Draws("test", "lada", 0), small_backbone.clip
    x, labels = F.normalize(task.train.features(), dim=1), task.train.labels
    adapters = ParallelAdapters(2, 32, 4, 0.1, draws, own=True)
    start = [lada.centres(x[labels == c], 3) for c in (2, 3)]
    units = torch.nn.Parameter(torch.stack(start))
    tokens = small_backbone.tokenize(["a photo of a blue.", "a photo of a yellow."])
    optimiser = torch.optim.AdamW([*adapters.parameters(), units], lr=1e-3, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-3, total_steps=9)
    step = 0
    for epoch in range(3):
        for rows in draws.permutation(12, "batch order", 1, epoch).split(4):
            drawn = F.normalize(means + deviations.unsqueeze(1) * draws.normal((4, 24), "replay", 1, step), dim=1)
            images = torch.cat([drawn, x[rows]])
            text = F.normalize(torch.cat([old_text, adapters.text_features(clip, tokens)]), dim=1)
            nearness = torch.exp(images @ torch.cat([old_memory, units]).flatten(0, 1).T - 1).view(-1, 4, 3).sum(dim=2)
            logits = small_backbone.logit_scale * images @ text.T + nearness
            losses = F.cross_entropy(logits, torch.cat([torch.tensor([0, 0, 1, 1]), labels[rows]]), reduction="none")
            optimiser.zero_grad()
            (torch.cat([9 * shares, torch.ones(len(rows))]) @ losses / len(images)).backward()
            optimiser.step()
            scheduler.step()
            step += 1
    teach(method, task)
    torch.testing.assert_close(method.memory.detach()[2:], units.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.kept_texts[2:], adapters.text_features(clip, tokens).detach(), rtol=1e-3, atol=1e-4)
    assert torch.equal(method.memory.detach()[:2], old_memory) and torch.equal(method.kept_texts[:2], old_text)
    assert not torch.equal(method.memory.detach()[2:], torch.stack(start))


def test_every_task_starts_from_adapters_of_the_same_numbers_that_change_nothing(small_backbone, make_stream, monkeypatch):
    stream, starts = make_stream(), []
    method = build(small_backbone, stream.scenario, bottleneck=16)
    new_adapters = method.new_adapters
    monkeypatch.setattr(method, "new_adapters", lambda: starts.append(new_adapters()) or new_adapters())
    teach(method, *stream.tasks)
    first, second = ({name: w.clone() for name, w in start.state_dict().items()} for start in starts)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = build(small_backbone, stream.scenario, seed=1, bottleneck=16).adapters
    assert not torch.equal(other.down[0].weight, starts[0].down[0].weight)
    spread = torch.stack([down.weight for down in starts[0].down]).detach().std()
    assert float(spread) == pytest.approx(math.sqrt(2 / (6 * small_backbone.text_width)), rel=0.1)
    tokens = small_backbone.tokenize(["a photo of a red.", "a photo of a dark gray."])
    expected = small_backbone.encode_text(["a photo of a red.", "a photo of a dark gray."])
    torch.testing.assert_close(starts[0].text_features(small_backbone.clip, tokens).detach(), expected)


def test_a_text_adapter_is_a_bottleneck_of_its_own_norm_before_the_second_norm(small_backbone):
    adapters, clip = ParallelAdapters(2, 32, 4, 0.3, Draws("test", "lada", 0), own=True), small_backbone.clip
    generator = torch.Generator().manual_seed(0)
    for weights in adapters.parameters():
        torch.nn.init.normal_(weights, generator=generator)
    tokens = small_backbone.tokenize(["a photo of a red."])
    x = clip.token_embedding(tokens) + clip.positional_embedding
    parts = zip(clip.transformer.resblocks, adapters.norms, adapters.down, adapters.up, adapters.factors)
    for block, norm, down, up, factor in parts:
        y = x + block.attn(*[block.ln_1(x)] * 3, need_weights=False, attn_mask=clip.attn_mask)[0]
        normed = F.layer_norm(y, (32,), norm.weight, norm.bias, 1e-5)
        narrow = (normed @ down.weight.T + down.bias).relu()
        x = y + block.mlp(block.ln_2(y)) + 0.3 * factor * (narrow @ up.weight.T + up.bias)
    expected = clip.ln_final(x)[:, int(tokens.argmax())] @ clip.text_projection
    torch.testing.assert_close(adapters.text_features(clip, tokens), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        ({"mirrored_view": True}, 30), ({"crop_scale": 0.5}, 30), ({}, 0), ({"crop_scale": 0.5, "whole_tasks": ("task 0",)}, 0),
    ],
)  # fmt: skip
def test_images_are_encoded_in_training_only_where_they_are_cropped_or_mirrored(
    small_backbone, make_stream, settings, passes
):
    task = make_stream().tasks[0]
    method = build(small_backbone, make_stream().scenario, **settings)
    task.train.features()
    before = small_backbone.image_passes
    teach(method, task)
    assert small_backbone.image_passes - before == passes  # 3 epochs of 10 images


def test_epochs_of_a_named_task_and_a_limit_on_training_images(small_backbone, make_stream, monkeypatch):
    stream = make_stream()
    short = dataclasses.replace(stream.scenario, images_per_task=8)
    for scenario, expected in ((stream.scenario, [6, 9]), (short, [2, 2])):
        method, steps = build(small_backbone, scenario, epochs_of_task=(("task 0", 2),)), []
        loss = method.loss
        monkeypatch.setattr(method, "loss", lambda *given: steps.append(1) or loss(*given))
        for task, wanted in zip(stream.tasks, expected):
            steps.clear()
            teach(method, task)
            assert len(steps) == wanted


def test_an_old_class_weighs_as_much_as_the_setting_says(small_backbone, make_stream):
    stream = make_stream()
    method = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    inputs = method.with_replay(torch.ones(5, 24), torch.full((5,), 2), 1, 0)
    assert inputs.labels.tolist() == [0, 0, 1, 1] + [2] * 5 and inputs.weights[4:].tolist() == [1.0] * 5
    assert [float(inputs.weights[inputs.labels == c].sum()) for c in (0, 1)] == pytest.approx([64, 64])
    logits = torch.zeros(9, 4)
    assert float(method.loss(logits, inputs)) == pytest.approx((2 * 64 + 5) * math.log(4) / 9)


# -- as a method ------------------------------------------------------------------------------------------------


def test_it_learns_a_second_task_without_losing_the_first(small_backbone, make_stream):
    stream = make_stream(sizes=(3, 3), per_class=12)
    method = teach(build(small_backbone, stream.scenario, epochs=30, lr=0.01), *stream.tasks)
    assert all(accuracy(method, task, range(6)) > 0.85 for task in stream.tasks)


@pytest.mark.parametrize("sizes", [(1, 2, 1), (3, 1)])
def test_tasks_of_any_size_and_classes_of_fewer_images_than_units_and_components(small_backbone, make_stream, sizes):
    stream = make_stream(sizes=sizes, per_class=1)
    method = teach(build(small_backbone, stream.scenario, units=5, components=4), *stream.tasks)
    assert torch.isfinite(method.logits(stream.joined().train.features(), range(4))).all()
    assert method.n_units.tolist() == [1] * 4 and len(method.mixtures) == 4


def test_resumed_after_any_task_it_ends_with_the_same_numbers(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 1, 2))
    whole, states = build(small_backbone, stream.scenario), []
    for task in stream.tasks:
        teach(whole, task)
        states.append({name: value.clone() for name, value in whole.state_dict().items()})
    assert not any(name.startswith("adapters.") for name in states[0])
    for done, state in enumerate(states, start=1):
        resumed = build(small_backbone, stream.scenario)
        resumed.load_state_dict(state)
        teach(resumed, *stream.tasks[done:])
        x = stream.tasks[0].train.features()
        assert torch.equal(resumed.logits(x, range(5)), whole.logits(x, range(5)))


def test_a_run_that_diverges_is_named(small_backbone, make_stream):
    stream = make_stream()
    with pytest.raises(RunFailure, match="not finite"):
        teach(build(small_backbone, stream.scenario, lr=1e30), stream.tasks[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"epochs_of_task": (("dtd", 0),)}, {"batch_size": 0}, {"units": 0}, {"components": 0},
        {"bottleneck": 0}, {"alpha": -1.0}, {"beta": -1.0}, {"unseen_penalty": -1.0}, {"crop_scale": 0.0},
        {"template": "no place"},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BenchError):
        LADA.Settings(**wrong)


def test_authors_settings():
    def epochs(protocol):
        settings = LADA.settings_for(protocol)
        assert (settings.lr, settings.weight_decay, settings.batch_size, settings.replay_weight) == (1e-3, 5e-4, 64, 64.0)
        assert (settings.units, settings.components, settings.bottleneck, settings.alpha, settings.beta) == (16, 4, 16, 1.0, 1.0)
        assert (settings.crop_scale, settings.mirrored_view, settings.template) == (0.08, True, "a photo of a {}.")
        return dict(settings.epochs_of_task)

    for order in ("xtail-order1", "xtail-order2"):
        full, few = epochs(order), epochs(f"{order}-16shot")
        assert (full["aircraft"], full["sun397"], full["mnist"], full["eurosat"]) == (60, 2, 20, 20)
        assert (few["aircraft"], few["sun397"], few["mnist"], few["eurosat"]) == (40, 10, 200, 100)
        assert set(full) == set(few) and len(full) == 10
    assert epochs("cifar100-10x10") == {}
