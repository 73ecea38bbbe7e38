import dataclasses

import pytest
import torch
import torch.nn.functional as F

from bench.clip.image_tower import blocks
from bench.errors import BenchError, RunFailure
from bench.system.randomness import Draws
from methods.coleclip.coleclip import CoLeCLIP, TaskTraining
from methods.coleclip.image_prompts import prompted_images
from methods.coleclip.open_domain_loss import open_domain_loss
from methods.coleclip.vocabulary import mean_distance, moved
from methods.zero_shot import ZeroShot
from tests.methods.teaching import teach

QUICK = {"lr": 5e-3, "batch_size": 4, "epochs": 2, "rank": 2, "crop_scale": 1.0}


def build(backbone, scenario, seed=0, **settings):
    return CoLeCLIP(CoLeCLIP.Settings(**{**QUICK, **settings}), backbone, scenario, Draws("test", "coleclip", seed))


# -- vocabulary -------------------------------------------------------------------------------------------------


def test_an_entry_moves_by_its_share_and_keeps_its_length():
    entries = F.normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    vectors = F.normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(1)), dim=-1).requires_grad_()
    expected = torch.stack([(0.2 * t + 0.8 * e) / (0.2 * t + 0.8 * e).norm() for t, e in zip(vectors.detach(), entries)])
    found = moved(entries, vectors, 0.2)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def test_a_distance_of_rounding_size_has_no_gradient():
    anchors = torch.zeros(3, 4)
    vectors = torch.tensor([[3.0, 4.0, 0, 0], [0, 0, 0, 0], [1e-8, 0, 0, 0]], requires_grad=True)
    distance = mean_distance(vectors, anchors)
    distance.backward()
    assert float(distance.detach()) == pytest.approx(5 / 3)
    torch.testing.assert_close(vectors.grad, torch.tensor([[0.2, 0.8 / 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))


def test_with_one_template_the_first_update_ignores_the_penalty(small_backbone, make_stream):
    """Where the class vectors are the anchors up to rounding, which would decide the direction of a whole step of Adam."""
    stream = make_stream()
    one = dataclasses.replace(stream.scenario, templates=(("a photo of a {}.",),) * 4)
    gradients = []
    for weight in (0.0, 1.0):
        method = build(small_backbone, one, penalty_weight=weight)
        training = TaskTraining(method, stream.tasks[0])
        training.loss(stream.tasks[0].train.pixels(), stream.tasks[0].train.labels, False).backward()
        gradients.append(training.lora.k_B.grad)
    assert gradients[0].any() and torch.equal(*gradients)


# -- training ---------------------------------------------------------------------------------------------------


def test_two_tasks_are_their_transcription(small_backbone, make_stream):
    """Against a loop of its own that changes copies of the weights, with the same draws."""
    stream = make_stream(sizes=(2, 3))
    method = teach(build(small_backbone, stream.scenario, momentum=0.2, quantile=0.5, open_from=0.5), *stream.tasks)
    draws, scale = Draws("test", "coleclip", 0), small_backbone.logit_scale
    vocabulary = small_backbone.classifier(stream.scenario.prompts_of(range(5)))
    prompts = 0.01 * draws.uniform((2, 1, 32), "prompts")
    for t, task in enumerate(stream.tasks):
        own = torch.nn.Parameter(prompts[t].clone())
        downs = [
            torch.nn.Parameter((2 * draws.uniform((2, 2, 32), "lora", t, which) - 1) * 32**-0.5) for which in ("keys", "values")
        ]
        ups = [torch.nn.Parameter(torch.zeros(2, 32, 2)) for _ in range(2)]
        scales = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
        optimiser = torch.optim.Adam([own, *downs, *ups, *scales], lr=5e-3)
        classes = list(task.classes)
        anchors, tokens = vocabulary[classes].clone(), small_backbone.tokenize(stream.scenario.prompts(classes))
        n_updates, step = 2 * -(-len(task.train) // 4), 0
        for epoch in range(2):
            for rows in draws.permutation(len(task.train), "batch order", t, epoch).split(4):
                weights = dict(small_backbone.clip.named_parameters())
                for i in range(2):
                    name = f"transformer.resblocks.{i}.attn.in_proj_weight"
                    keys, values = (scales[k][i] * ups[k][i] @ downs[k][i] for k in range(2))
                    weights[name] = weights[name] + torch.cat([torch.zeros(32, 32), keys, values])
                _, texts, _ = torch.func.functional_call(small_backbone.clip, weights, (None, tokens))
                T = F.normalize((vocabulary[classes] + texts) / 2, dim=-1)
                vocabulary[classes] = F.normalize(0.2 * T.detach() + 0.8 * vocabulary[classes], dim=-1)
                outputs = prompted_images(
                    small_backbone.clip.visual, task.train.pixels(rows), torch.cat([prompts[:t], own[None]])
                )
                c = outputs[:, -1:]
                v, c_hat = F.normalize(outputs[:, :-1] + c, dim=-1), F.normalize(c[:, 0], dim=-1)
                targets = task.train.labels[rows] - classes[0]
                if t and step > n_updates // 2:
                    columns = torch.cat([T, vocabulary[:2]])
                    owned = torch.tensor([[False] * 3 + [True] * 2, [True] * 3 + [False] * 2])
                    loss = open_domain_loss(v, c_hat, columns, owned, 3, targets, scale, 0.5)
                else:
                    loss = (F.cross_entropy(scale * c_hat @ T.T, targets) + F.cross_entropy(scale * v[:, t] @ T.T, targets)) / 2
                optimiser.zero_grad()
                (loss + (T - anchors).norm(dim=-1).mean()).backward()
                optimiser.step()
                step += 1
        prompts[t] = own.detach()
    torch.testing.assert_close(method.prompts, prompts, rtol=0.02, atol=2e-3)
    torch.testing.assert_close(method.vocabulary, vocabulary, rtol=1e-2, atol=1e-3)


def test_earlier_classes_compete_in_the_second_half_and_never_in_the_first_task(small_backbone, make_stream, monkeypatch):
    stream, halves = make_stream(), []
    loss = TaskTraining.loss
    monkeypatch.setattr(
        TaskTraining, "loss", lambda training, *given: halves.append((training.index, given[2])) or loss(training, *given)
    )
    teach(build(small_backbone, stream.scenario, epochs=3), *stream.tasks)  # 9 updates a task
    assert [after for task, after in halves if task == 0] == [False] * 9
    assert [after for task, after in halves if task == 1] == [False] * 5 + [True] * 4


def test_gradients_reach_the_present_prompt_and_lora_alone(small_backbone, make_stream):
    stream = make_stream()
    method = teach(build(small_backbone, stream.scenario), stream.tasks[0])
    training, task = TaskTraining(method, stream.tasks[1]), stream.tasks[1]
    before = method.prompts.clone()
    for against_others in (False, True):
        training.zero_grad()
        training.loss(task.train.pixels(), task.train.labels, against_others).backward()
        assert {name for name, weights in training.named_parameters() if weights.grad.any()} == {"prompt", "lora.k_B", "lora.v_B"}
    assert torch.equal(method.prompts, before) and not any(own.grad is not None for own in small_backbone.clip.parameters())


def test_lora_is_drawn_anew_and_not_kept_while_other_entries_and_prompts_stay(small_backbone, make_stream, monkeypatch):
    stream, starts = make_stream(), []
    make = TaskTraining.__init__
    monkeypatch.setattr(
        TaskTraining,
        "__init__",
        lambda training, *given: make(training, *given) or starts.append(training.lora.k_A.detach().clone()),
    )
    method = build(small_backbone, stream.scenario)
    drawn = method.prompts.clone()
    assert 0 <= float(drawn.min()) and 0.009 < float(drawn.max()) <= 0.01
    teach(method, stream.tasks[0])
    first, entries = method.prompts[0].clone(), method.vocabulary.clone()
    assert torch.equal(method.prompts[1], drawn[1])
    teach(method, stream.tasks[1])
    assert torch.equal(method.prompts[0], first) and torch.equal(method.vocabulary[:2], entries[:2])
    assert not torch.equal(starts[0], starts[1])
    shapes = {name: tuple(value.shape) for name, value in method.state_dict().items()}
    assert shapes == {"vocabulary": (4, 24), "prompts": (2, 1, 32), "n_tasks": ()}


def test_only_some_text_blocks_may_be_changed(small_backbone, make_stream):
    stream = make_stream()
    method = build(small_backbone, stream.scenario, lora_blocks=(1,))
    assert len(TaskTraining(method, stream.tasks[0]).lora.k_A) == 1
    teach(method, stream.tasks[0])
    changed = [block.attn.in_proj_weight for block in blocks(method.towers.clip)]
    frozen = [block.attn.in_proj_weight for block in blocks(small_backbone.clip)]
    assert [torch.equal(*pair) for pair in zip(changed, frozen)] == [True, False]
    with pytest.raises(BenchError, match="blocks 0 to 1"):
        build(small_backbone, stream.scenario, lora_blocks=(2,))


def test_epochs_by_name_and_a_limit_on_training_images(small_backbone, make_stream, monkeypatch):
    stream, updates = make_stream(), []
    loss = TaskTraining.loss
    monkeypatch.setattr(TaskTraining, "loss", lambda training, *given: updates.append(training.index) or loss(training, *given))
    teach(build(small_backbone, stream.scenario, epochs_of_task=(("task 1", 1),)), *stream.tasks)
    assert (updates.count(0), updates.count(1)) == (6, 3)
    updates.clear()
    teach(build(small_backbone, dataclasses.replace(stream.scenario, images_per_task=8)), *stream.tasks)
    assert (updates.count(0), updates.count(1)) == (2, 2)


# -- scores and the rest ----------------------------------------------------------------------------------------


def test_before_the_first_task_it_is_zero_shot_clip_and_so_are_unlearned_classes_after_it(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 3))
    pixels, features = stream.tasks[1].train.pixels(), stream.tasks[1].train.features()
    zero_shot = ZeroShot(None, small_backbone, stream.scenario, Draws("test", "zero-shot", 0)).logits(features, range(5))
    method = build(small_backbone, stream.scenario)
    torch.testing.assert_close(method.logits(pixels, range(5)), zero_shot, rtol=1e-4, atol=1e-4)
    teach(method, stream.tasks[0])
    scores = method.logits(pixels, range(5))
    torch.testing.assert_close(scores[:, 2:], zero_shot[:, 2:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(scores[:, :2], zero_shot[:, :2], atol=1e-2)


def test_a_score_depends_on_no_other_image_and_no_other_class(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2, 2))
    method = teach(build(small_backbone, stream.scenario), *stream.tasks[:2])
    pixels = torch.cat([task.train.pixels()[:2] for task in stream.tasks])
    together = method.logits(pixels, range(6))
    alone = torch.cat([method.logits(image.unsqueeze(0), [4, 2, 0]) for image in pixels])
    torch.testing.assert_close(together[:, [4, 2, 0]], alone, rtol=1e-4, atol=1e-3)


def test_it_learns_a_second_task_without_losing_the_first(small_backbone, make_stream):
    stream = make_stream("task-incremental", sizes=(3, 3), per_class=8)
    accuracies = []
    for taught in (False, True):
        method = build(small_backbone, stream.scenario, epochs=15, lr=2e-2, batch_size=8, momentum=0.3)
        teach(method, *(stream.tasks if taught else ()))
        for task in stream.tasks:
            right = method.logits(task.train.pixels(), task.classes).argmax(dim=-1) + task.classes[0] == task.train.labels
            accuracies.append(float(right.float().mean()))
    assert sum(accuracies[2:]) > max(1.5, sum(accuracies[:2]) + 0.5)


def test_tasks_of_one_class_and_single_images(small_backbone, make_stream):
    stream = make_stream(sizes=(1, 2, 1), per_class=1)
    method = teach(build(small_backbone, stream.scenario, batch_size=1), *stream.tasks)
    assert torch.isfinite(method.logits(stream.joined().train.pixels(), range(4))).all()


def test_resumed_after_any_task_it_ends_with_the_same_numbers(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 1, 2))
    whole, states = build(small_backbone, stream.scenario), []
    for task in stream.tasks:
        teach(whole, task)
        states.append({name: value.clone() for name, value in whole.state_dict().items()})
    for done, state in enumerate(states, start=1):
        resumed = build(small_backbone, stream.scenario)
        resumed.load_state_dict(state)
        teach(resumed, *stream.tasks[done:])
        for name in ("prompts", "vocabulary"):
            assert torch.equal(getattr(resumed, name), getattr(whole, name))


def test_a_run_that_diverges_is_named(small_backbone, make_stream):
    stream = make_stream()
    with pytest.raises(RunFailure, match="not finite"):
        teach(build(small_backbone, stream.scenario, lr=float("inf")), stream.tasks[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0}, {"epochs": 0}, {"prompt_tokens": 0}, {"rank": 0}, {"momentum": 1.5}, {"open_from": -0.1},
        {"quantile": 2.0}, {"crop_scale": 0.0}, {"epochs_of_task": (("dtd", 0),)},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused_in_one_line(wrong):
    with pytest.raises(BenchError) as caught:
        CoLeCLIP.Settings(**wrong)
    assert "\n" not in str(caught.value)


def test_authors_settings():
    for protocol in ("mtil-order1", "mtil-order2"):
        s = CoLeCLIP.settings_for(protocol)
        epochs = dict(s.epochs_of_task)
        assert len(epochs) == 11 and (epochs["flowers"], epochs["sun397"], epochs["dtd"], epochs["mnist"]) == (63, 1, 35, 2)
        assert (s.lr, s.batch_size, s.rank, s.prompt_tokens, s.crop_scale) == (1e-3, 128, 5, 1, 0.9)
        assert (s.momentum, s.quantile, s.open_from, s.penalty_weight) == (0.1, 0.7, 0.5, 1.0)
