"""Exemplars and reservoirs: iCaRL in both forms, ER and DER++."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.fine_tuning.icarl import ICaRL
from methods.image_tower.icarl_nme import ICaRLNME, exemplar_means, negative_squared_distances
from methods.image_tower.rehearsal_buffer import DarkExperienceReplay, ExperienceReplay

QUICK = {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "mirrored_view": False}


def build(method_class, backbone, scenario, **settings):
    return method_class(method_class.Settings(**settings), backbone, scenario, Draws("test", "replay", 0)).eval()


def teach(method, task):
    method.grow(task)
    method.learn(task)


# -- iCaRL for CLIP -----------------------------------------------------------------------------------------------


def clip_icarl(backbone, scenario, **settings):
    return build(ICaRL, backbone, scenario, lr=1e-4, iterations=2, warmup=1, batch_size=4, **settings)


def test_memory_is_shared_by_the_tasks(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2, 2), per_class=6)
    method = clip_icarl(small_backbone, stream.scenario, memory_size=9)
    sizes = []
    for task in stream.tasks:
        teach(method, task)
        sizes.append([len(method.exemplars(t)) for t in range(task.index + 1)])
    assert sizes == [[9], [4, 4], [3, 3, 3]]
    assert method.exemplar_bytes() == 9 * 3 * 32 * 32


def test_the_released_memory_exceeds_its_budget(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2, 2), per_class=6)
    method = clip_icarl(small_backbone, stream.scenario, memory_size=9, faithful_memory=True)
    for task in stream.tasks:
        teach(method, task)
    assert [len(method.exemplars(t)) for t in range(3)] == [3, 3, 6]


def test_no_distillation_on_the_first_task(small_backbone, make_stream):
    stream = make_stream()
    method = clip_icarl(small_backbone, stream.scenario, memory_size=4)
    calls = []
    method.distillation_losses = lambda rows, pixels: calls.append(rows.tolist()) or (torch.zeros(()), torch.zeros(()))
    teach(method, stream.tasks[0])
    assert not calls
    teach(method, stream.tasks[1])
    assert calls == [[0, 1, 2, 3]] * 3  # the four stored images in their order, again and again


# -- iCaRL with nearest means -------------------------------------------------------------------------------------


def test_nearest_mean_distances_one_by_one():
    features = [torch.randn(3, 5), torch.randn(2, 5)]
    means, query = exemplar_means(features), torch.randn(4, 5)
    for c, own in enumerate(features):
        mean = sum(f / (f.norm() + 1e-8) for f in own) / len(own)
        mean = mean / mean.norm()
        for row, score in zip(query, negative_squared_distances(query, means)[:, c]):
            assert score.item() == pytest.approx(-(row / (row.norm() + 1e-8) - mean).square().sum().item(), rel=1e-4)


def test_old_classes_keep_their_first_exemplars(small_backbone, make_stream):
    stream = make_stream(per_class=6)
    scenario = dataclasses.replace(stream.scenario, exemplars_total=8)
    method = build(ICaRLNME, small_backbone, scenario, **QUICK)
    teach(method, stream.tasks[0])
    before = method.exemplars.clone()
    teach(method, stream.tasks[1])
    assert len(before) == 8 and len(method.exemplars) == 8
    assert method.exemplars[:4].tolist() == [*before[:2].tolist(), *before[4:6].tolist()]
    owners = method.seen_images.labels[method.exemplars]
    assert owners.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_distillation_of_the_old_head(small_backbone, make_stream):
    stream = make_stream()
    method = build(ICaRLNME, small_backbone, stream.scenario, exemplars=2, **QUICK)
    teach(method, stream.tasks[0])
    method.known, method.old = 2, method.old_model()
    with torch.no_grad():
        method.head.weight += 0.1 * torch.randn(method.head.weight.shape)
    pixels = stream.tasks[0].train.pixels()[:3]
    logits = method.head(method.pooled(pixels))
    old = method.old[1](method.pooled(pixels))[:, :2]
    slow = 0.0
    for new_row, old_row in zip(logits[:, :2], old):
        p, q = F.softmax(old_row / 2, dim=0), F.softmax(new_row / 2, dim=0)
        slow -= sum(p[c] * q[c].log() for c in range(2)) / 3
    assert method.distill(logits, pixels).item() == pytest.approx(slow.item(), rel=1e-4)


def test_a_total_below_one_a_class_is_refused(small_backbone, make_stream):
    scenario = dataclasses.replace(make_stream().scenario, exemplars_total=2)
    with pytest.raises(BenchError, match="less than one a class"):
        build(ICaRLNME, small_backbone, scenario, **QUICK)


# -- reservoirs ---------------------------------------------------------------------------------------------------


def test_a_reservoir_replaces_as_drawn(small_backbone, make_stream):
    method = build(ExperienceReplay, small_backbone, make_stream().scenario, **QUICK)
    method.capacity = 2
    draws = [0.5, 0.5, 2.5 / 3, 0.1 / 4, 1.2 / 5]  # for images 2, 3, 4: r = 2, 0, 1
    states = []
    for row, draw in zip("abcde", draws):
        method.offer(torch.tensor([ord(row)]), torch.tensor([draw], dtype=torch.float64))
        states.append("".join(map(chr, method.stored.tolist())))
    assert states == ["a", "ab", "ab", "db", "de"]
    at_once = build(ExperienceReplay, small_backbone, make_stream().scenario, **QUICK)
    at_once.capacity = 2
    written = at_once.offer(torch.tensor([ord(row) for row in "abcde"]), torch.tensor(draws, dtype=torch.float64))
    assert at_once.stored.tolist() == method.stored.tolist() and int(at_once.offered) == int(method.offered) == 5
    assert written == {0: 3, 1: 4}  # slot -> place of the last image that was put there


def test_replay_joins_the_batch_from_the_second_step_on(small_backbone, make_stream):
    stream = make_stream(sizes=(2,))
    method = build(ExperienceReplay, small_backbone, stream.scenario, **QUICK, replay_batch_size=3)
    sizes = []
    pooled = method.pooled
    method.pooled = lambda pixels: sizes.append(len(pixels)) or pooled(pixels)
    teach(method, stream.tasks[0])
    assert sizes[:3] == [4, 7, 5]  # 10 images in batches of 4, 4, 2


def test_dark_replay_stores_the_logits_of_the_step(small_backbone, make_stream):
    stream = make_stream(sizes=(2,))
    method = build(DarkExperienceReplay, small_backbone, stream.scenario, **{**QUICK, "epochs": 1}, exemplars=20)
    seen = []
    loss = method.loss

    def watched(*arguments):
        value = loss(*arguments)
        seen.append(method.stream_logits.detach())
        return value

    method.loss = watched
    teach(method, stream.tasks[0])
    torch.testing.assert_close(method.stored_logits, torch.cat(seen))
    assert len(method.stored) == 10 and int(method.offered) == 10


def test_dark_replay_loss_term_by_term(small_backbone, make_stream):
    stream = make_stream(sizes=(2,))
    method = build(DarkExperienceReplay, small_backbone, stream.scenario, **QUICK)
    teach(method, stream.tasks[0])
    pixels, labels = stream.tasks[0].train.pixels()[:2], stream.tasks[0].train.labels[:2]
    first, second = (method.replay(stream.tasks[0], 0, draw) for draw in ("first replay", "second replay"))
    logits = [method.head(method.pooled(part)) for part in (pixels, first[0], second[0])]
    expected = (
        F.cross_entropy(logits[0], labels)
        + 0.3 * (logits[1] - method.stored_logits[first[2]]).square().mean()
        + 0.5 * F.cross_entropy(logits[2], second[1])
    )
    torch.testing.assert_close(method.loss(pixels, labels, stream.tasks[0], 0), expected)
