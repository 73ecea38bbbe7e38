import dataclasses

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError, RunFailure
from bench.learning.evaluation import evaluate
from bench.streams.stream import Stream
from bench.system.randomness import Draws
from methods.mg_clip import MGCLIP
from methods.shared.class_names import underscored
from methods.zero_shot import ZeroShot
from tests.methods.teaching import teach

QUICK = {"rank": 2, "lr": 3e-3, "batch_size": 4, "epochs": 2, "visual_batch_size": 3, "visual_epochs": 2, "visual_lr": 1e-2}


def build(backbone, scenario, seed=0, **settings):
    return MGCLIP(MGCLIP.Settings(**{**QUICK, **settings}), backbone, scenario, Draws("test", "mg-clip", seed))


def orders_of_epochs(monkeypatch, method):
    """The purposes of all orders that are drawn."""
    purposes, permutation = [], method.draws.permutation
    monkeypatch.setattr(method.draws, "permutation", lambda n, *purpose: purposes.append(purpose) or permutation(n, *purpose))
    return purposes


# -- scores -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [None, "a good photo of a {}."])
def test_before_the_first_task_it_is_zero_shot_clip(small_backbone, make_stream, template):
    stream = make_stream(sizes=(2, 3))
    pixels, features = stream.tasks[0].train.pixels(), stream.tasks[0].train.features()
    method = build(small_backbone, stream.scenario, template=template)
    text = small_backbone.classifier(stream.scenario.prompts_of([4, 0], template))
    expected = small_backbone.logit_scale * F.normalize(features, dim=-1) @ text.T
    torch.testing.assert_close(method.logits(pixels, [4, 0]), expected, rtol=1e-4, atol=1e-4)
    if template is None:
        zero_shot = ZeroShot(None, small_backbone, stream.scenario, Draws("test", "zero-shot", 0))
        torch.testing.assert_close(method.logits(pixels, [4, 0]), zero_shot.logits(features, [4, 0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("twice", [True, False])
def test_scores_of_learned_classes_are_their_transcription(small_backbone, make_stream, twice):
    stream = make_stream(sizes=(2, 2))
    method = teach(build(small_backbone, stream.scenario, text_softmax_twice=twice, visual_weight=3.0), *stream.tasks)
    pixels, chosen = stream.tasks[0].train.pixels(), [3, 0, 1]
    clip = method.change_towers()
    with torch.no_grad():
        f = F.normalize(clip.encode_image(pixels), dim=-1)
        t = small_backbone.classifier(stream.scenario.prompts_of(chosen, "a good photo of a {}."), clip=clip)
    for image, scores in zip(f, method.logits(pixels, chosen).softmax(dim=-1)):
        p = (small_backbone.logit_scale * t @ image).softmax(dim=0)
        c = torch.stack([F.cosine_similarity(method.rows[k], image, dim=0) for k in chosen])
        text = p.softmax(dim=0) if twice else p
        torch.testing.assert_close(scores, (text + 3 * c.softmax(dim=0)) / 4, rtol=1e-4, atol=1e-5)


def test_a_list_with_an_unlearned_class_is_scored_by_text_alone(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2))
    method = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    pixels = stream.tasks[0].train.pixels()
    with torch.no_grad():
        f = F.normalize(method.change_towers().encode_image(pixels), dim=-1)
    assert torch.equal(method.logits(pixels, [0, 3]), method.text_scores(f, [0, 3]))
    assert not torch.allclose(method.logits(pixels, [0, 1]).softmax(dim=-1), method.text_scores(f, [0, 1]).softmax(dim=-1))


def test_candidates_compete_among_themselves_in_every_cell(small_backbone, make_stream):
    """A score of one list is not that of a longer one with some columns left out."""
    stream = make_stream(sizes=(2, 2, 1))
    stream = Stream(stream.scenario, tuple(dataclasses.replace(task, test=task.train) for task in stream.tasks))
    method = teach(build(small_backbone, stream.scenario), *stream.tasks[:2])
    passes = small_backbone.image_passes
    cells = {(cell.eval_task, cell.candidates): cell for cell in evaluate(method, stream, after_task=1)}
    assert small_backbone.image_passes - passes == 25  # once for all lists
    pixels = stream.tasks[0].train.pixels()
    lists = {(0, "seen"): range(4), (0, "task"): range(2), (2, "seen"): range(4), (2, "all"): range(5), (2, "future"): [4]}
    for (task, candidates), classes in lists.items():
        logits = method.logits(stream.tasks[task].train.pixels(), classes)
        confidence = torch.from_numpy(cells[task, candidates].confidence)
        torch.testing.assert_close(confidence, logits.softmax(dim=-1).amax(dim=-1), rtol=1e-4, atol=1e-5)
    cut = method.logits(pixels, range(4))[:, :2].softmax(dim=-1)
    assert not torch.allclose(cut, method.logits(pixels, range(2)).softmax(dim=-1), atol=1e-4)


def test_other_batches_are_encoded_anew_and_so_are_old_ones_after_a_task(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2))
    method = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    first, second = (task.train.pixels() for task in stream.tasks)
    scores = [method.logits(batch, [0, 1]) for batch in (first, second, first)]
    assert torch.equal(scores[0], scores[2]) and not torch.equal(scores[0], scores[1])
    teach(method, stream.tasks[1])
    assert not torch.equal(method.logits(first, [0, 1]), scores[0])


def test_names_are_written_as_the_data_sets_files_write_them(small_backbone, make_stream):
    scenario = make_stream(sizes=(3, 3)).scenario
    plain, written = (build(small_backbone, scenario, keep_underscores=keep) for keep in (False, True))
    changed = (plain.class_vectors != written.class_vectors).any(dim=1)
    assert changed.tolist() == [name == "dark gray" for name in scenario.class_names]
    tokens = small_backbone.tokenize(underscored(scenario).prompts(range(6), "a good photo of a {}."))
    assert torch.equal(written.prompt_tokens, tokens)


# -- step 1 -----------------------------------------------------------------------------------------------------


def test_step_1_is_adam_on_the_tasks_own_classes(small_backbone, make_stream):
    """Against a loop of its own: LoRA as branches in a functional copy, torch's optimiser and scheduler."""
    stream = make_stream(sizes=(2, 2))
    method = teach(build(small_backbone, stream.scenario, visual_epochs=0), stream.tasks[0])
    ours = [*method.image_lora.parameters(), *method.text_lora.parameters()]
    theirs = [torch.nn.Parameter(weights.detach().clone()) for weights in ours]
    task, draws, template = stream.tasks[1], Draws("test", "mg-clip", 0), "a good photo of a {}."
    tokens = small_backbone.tokenize(stream.scenario.prompts([2, 3], template))
    optimiser = torch.optim.Adam(theirs, lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=2, eta_min=3e-5)
    for epoch in range(2):
        for rows in draws.permutation(10, "batch order", 1, epoch).split(4):
            weights = dict(small_backbone.clip.named_parameters())
            for prefix, own in (("visual.", theirs[:4]), ("", theirs[4:])):
                k_A, v_A, k_B, v_B = own
                for i in range(2):
                    name = f"{prefix}transformer.resblocks.{i}.attn.in_proj_weight"
                    change = torch.cat([torch.zeros(32, 32), k_B[i] @ k_A[i] / 2, v_B[i] @ v_A[i] / 2])
                    weights[name] = weights[name] + change
            images, texts, _ = torch.func.functional_call(small_backbone.clip, weights, (task.train.pixels(rows), tokens))
            loss = F.cross_entropy(small_backbone.logit_scale * images @ texts.T, task.train.labels[rows] - 2)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        scheduler.step()
    names = [name for name, _ in method.image_lora.named_parameters()]
    assert names == ["k_A", "v_A", "k_B", "v_B"]
    teach(method, task)
    ours = [*method.image_lora.parameters(), *method.text_lora.parameters()]
    for found, expected in zip(ours, theirs):
        torch.testing.assert_close(found.detach(), expected.detach(), rtol=0.02, atol=5e-4)


def test_one_lora_goes_on_from_task_to_task(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2))
    method = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    before = method.image_lora.k_A.detach().clone()
    method.settings = dataclasses.replace(method.settings, lr=0.0)
    teach(method, stream.tasks[1])
    assert torch.equal(method.image_lora.k_A, before)


# -- how many epochs --------------------------------------------------------------------------------------------


def gaps(monkeypatch, method, values):
    """Lets the mean score of wrong classes be these, one after the other; the first is that of the untouched CLIP."""
    left = iter(values)
    monkeypatch.setattr(method, "mean_scores", lambda *_: (torch.tensor(0.0), torch.tensor(next(left))))


@pytest.mark.parametrize(
    ("values", "epochs"),
    [
        ([20.0, 22.5], 1),  # beyond after the first: one all the same
        ([20.0, 21.0, 17.9], 1),
        ([20.0, 21.9, 18.1, 25.0], 2),
        ([-20.0, -21.0, -19.0, -10.0], 2),  # their program would never end
        ([20.0, 20.0, 20.0, 20.0, 20.0], 4),  # never beyond: the whole trial
    ],
)
def test_epochs_are_those_that_ended_within_the_tolerance(values, epochs, small_backbone, make_stream, monkeypatch):
    stream = make_stream()
    method = build(small_backbone, stream.scenario, epochs=0, max_epochs=4)
    start = method.image_lora.k_A.detach().clone()
    gaps(monkeypatch, method, values)
    tuned, tune = [], method.tune

    def recorded(task, scenario, epochs, purpose, *rest):
        if purpose == "batch order":
            tuned.append((task.index, epochs, torch.equal(method.image_lora.k_A, start), not method.image_lora.k_B.any()))
        tune(task, scenario, epochs, purpose, *rest)

    monkeypatch.setattr(method, "tune", recorded)
    teach(method, *stream.tasks)
    assert tuned == [(0, epochs, True, True), (1, epochs, False, False)]  # from the start again; later tasks go on


def test_the_trials_rate_falls_over_its_longest_run(small_backbone, make_stream, monkeypatch):
    stream, rates = make_stream(), []
    method = build(small_backbone, stream.scenario, epochs=0, max_epochs=3)
    gaps(monkeypatch, method, [20.0, 20.0, 90.0])
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda optimiser, *rest: rates.append(optimiser.param_groups[0]["lr"]) or step(optimiser, *rest)
    )
    trial = method.search_epochs(stream.tasks[0], None)
    floor = 3e-5
    expected = [3e-3] * 3 + [floor + (3e-3 - floor) * 0.75] * 3
    assert trial == 1 and rates == pytest.approx(expected)


def test_mean_scores_are_means_of_batch_means(small_backbone, make_stream, monkeypatch):
    stream = make_stream(sizes=(3, 2))
    task = stream.tasks[0]  # 15 images, in batches of 4
    method = build(small_backbone, stream.scenario)
    images = F.normalize(task.train.features(), dim=-1)
    text = small_backbone.classifier(stream.scenario.prompts_of(range(3), "a good photo of a {}."))
    with torch.no_grad():
        right, wrong = method.mean_scores(task, images, small_backbone.clip, 7)
    scores, of_right, of_wrong = small_backbone.logit_scale * images @ text.T, [], []
    for rows in Draws("test", "mg-clip", 0).permutation(15, "gap order", 0, 7).split(4):
        pairs = [(int(row), int(task.train.labels[row])) for row in rows]
        of_right.append(sum(float(scores[row, y]) for row, y in pairs) / len(pairs))
        of_wrong.append(sum(float(scores[row, c]) / 2 for row, y in pairs for c in range(3) if c != y) / len(pairs))
    assert (float(right), float(wrong)) == pytest.approx((sum(of_right) / 4, sum(of_wrong) / 4), rel=1e-4)


def test_a_given_number_of_epochs_spares_the_trial_and_a_task_of_one_class_has_none(small_backbone, make_stream, monkeypatch):
    stream = make_stream(sizes=(1, 2))
    for epochs, expected in ((2, 2), (0, 1)):
        method = build(small_backbone, stream.scenario, epochs=epochs)
        purposes = orders_of_epochs(monkeypatch, method)
        teach(method, *stream.tasks)
        assert int(method.epochs) == expected and {purpose[0] for purpose in purposes} == {"batch order", "visual order"}
        assert torch.isfinite(method.logits(stream.tasks[0].train.pixels(), range(3))).all()


def test_a_limit_on_training_images_cuts_the_trial_and_both_steps(small_backbone, make_stream, monkeypatch):
    stream = make_stream()
    scenario = dataclasses.replace(stream.scenario, images_per_task=24)
    method, steps = build(small_backbone, scenario, epochs=0), []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda optimiser, *rest: steps.append(len(optimiser.param_groups[0]["params"])) or step(optimiser, *rest),
    )
    teach(method, stream.tasks[0])
    lora, rows = sum(n == 8 for n in steps), sum(n == 1 for n in steps)
    assert (lora, rows) == (3 + 1, 3)  # 12 images for the trial; 4 and 8 for the steps, the last batch whole


# -- step 2 -----------------------------------------------------------------------------------------------------


def test_rows_are_means_trained_on_cosines_and_old_ones_stay(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2))
    method = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    old = method.rows.clone()
    teach(method, stream.tasks[1])
    assert torch.equal(method.rows[:2], old) and method.rows.shape == (4, 24)
    task, draws = stream.tasks[1], Draws("test", "mg-clip", 0)
    features = method.unit_features(task)
    means = [features[task.train.labels == c].mean(dim=0) for c in (2, 3)]
    rows = torch.nn.Parameter(torch.stack(means))
    optimiser = torch.optim.Adam([rows], lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=8, eta_min=1e-4)
    for epoch in range(2):
        for chosen in draws.permutation(10, "visual order", 1, epoch).split(3):
            cosines = F.cosine_similarity(features[chosen].unsqueeze(1), rows.unsqueeze(0), dim=-1)
            optimiser.zero_grad()
            F.cross_entropy(cosines, task.train.labels[chosen] - 2).backward()
            optimiser.step()
            scheduler.step()
    torch.testing.assert_close(method.rows[2:], rows.detach(), rtol=1e-3, atol=1e-4)


def test_a_class_without_an_image_is_named(small_backbone, make_stream):
    stream = make_stream()
    first = stream.tasks[0]
    lacking = dataclasses.replace(first, train=first.train.chosen(torch.nonzero(first.train.labels == 0).flatten()))
    with pytest.raises(BenchError, match="'green' has no training image"):
        teach(build(small_backbone, stream.scenario), lacking)


# -- as a method ------------------------------------------------------------------------------------------------


def test_it_learns_a_second_task_without_losing_the_first(small_backbone, make_stream):
    stream = make_stream(sizes=(3, 3), per_class=8)
    accuracies = []
    for taught in (False, True):
        method = build(small_backbone, stream.scenario, lr=1e-3, visual_epochs=40)
        teach(method, *(stream.tasks if taught else ()))
        for task in stream.tasks:
            right = method.logits(task.train.pixels(), range(6)).argmax(dim=-1) == task.train.labels
            accuracies.append(float(right.float().mean()))
    assert min(accuracies[2:]) > 0.6 and sum(accuracies[2:]) > max(1.6, sum(accuracies[:2]) + 0.8)


def test_resumed_after_any_task_it_ends_with_the_same_numbers(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 1, 2))
    whole, states = build(small_backbone, stream.scenario, epochs=0, max_epochs=2), []
    for task in stream.tasks:
        teach(whole, task)
        states.append({name: value.clone() for name, value in whole.state_dict().items()})
    assert not any("clip" in name for name in states[0])  # no weights of CLIP
    pixels = stream.tasks[0].train.pixels()
    for done, state in enumerate(states, start=1):
        resumed = build(small_backbone, stream.scenario, epochs=0, max_epochs=2)
        resumed.logits(pixels, [0])  # with other weights
        resumed.load_state_dict(state)
        teach(resumed, *stream.tasks[done:])
        assert torch.equal(resumed.logits(pixels, range(5)), whole.logits(pixels, range(5)))


def test_a_run_that_diverges_is_named(small_backbone, make_stream):
    stream = make_stream()
    with pytest.raises(RunFailure, match="not finite"):
        teach(build(small_backbone, stream.scenario, lr=float("inf")), stream.tasks[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 0}, {"batch_size": 0}, {"visual_batch_size": 0}, {"max_epochs": 0}, {"epochs": -1}, {"visual_epochs": -1},
        {"text_weight": -1.0}, {"text_weight": 0.0, "visual_weight": 0.0}, {"gap_tolerance": 0.0}, {"template": "no place"},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused_in_one_line(wrong):
    with pytest.raises(BenchError) as caught:
        MGCLIP.Settings(**wrong)
    assert "\n" not in str(caught.value)


def test_authors_settings():
    def facts(protocol):
        s = MGCLIP.settings_for(protocol)
        return s.batch_size, s.epochs, s.lr, s.visual_batch_size, s.visual_lr, s.visual_epochs, s.keep_underscores

    assert facts("cifar100-10x10") == (128, 1, 1e-3, 64, 5e-4, 3, True)
    assert facts("imagenet100-10x10") == (128, 2, 5e-4, 128, 1e-3, 3, False)
    assert facts("imagenet-r-10x20") == (64, 2, 1e-3, 32, 5e-4, 3, True)
    assert facts("imagenet-r-20x10") == (64, 0, 1e-3, 32, 5e-4, 3, True)
    s = MGCLIP.settings_for("cub200-10x20")
    assert (s.rank, s.alpha, s.lr_floor, s.gap_tolerance, s.max_epochs, s.epochs) == (8, 1.0, 0.01, 0.1, 10, 0)
    assert (s.text_weight, s.visual_weight, s.text_softmax_twice, s.template) == (1.0, 4.0, True, "a good photo of a {}.")
