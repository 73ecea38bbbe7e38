import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError, RunFailure
from bench.system.randomness import Draws
from methods.clg_cbm.clg_cbm import CLGCBM, Layers
from tests.methods.teaching import accuracy, teach

NAMES = ("red", "green", "blue", "yellow", "dark gray", "white")
QUICK = {"search_epochs": 2, "first_epochs": 3, "later_epochs": 2, "milestones": (1,), "batch_size": 4, "kept_per_class": 2}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "concepts.json"
    path.write_text(json.dumps({name: [f"{name} part {k}" for k in range(3)] for name in NAMES}))
    return str(path)


def build(backbone, scenario, file, **settings):
    chosen = CLGCBM.Settings(**{**QUICK, "concepts": file, **settings})
    return CLGCBM(chosen, backbone, scenario, Draws("test", "clg-cbm", 0))


def test_scores_are_the_head_on_the_concept_layer(small_backbone, make_stream, file):
    stream = make_stream(sizes=(2, 2))
    method, x = teach(build(small_backbone, stream.scenario, file), *stream.tasks), stream.tasks[0].train.features()
    assert method.concept_layer.shape == method.bank.shape == (8, 24) and method.head.shape == (4, 8)
    expected = F.normalize(x, dim=-1) @ method.concept_layer.T @ method.head.T
    torch.testing.assert_close(method.logits(x, [3, 1]), expected[:, [3, 1]])


def test_classes_that_are_not_learned_have_no_score(small_backbone, make_stream, file):
    stream = make_stream(sizes=(2, 2))
    method = build(small_backbone, stream.scenario, file)
    with pytest.raises(ValueError, match="red"):
        method.logits(stream.tasks[0].train.features(), [0])
    teach(method, stream.tasks[0])
    with pytest.raises(ValueError, match="blue"):
        method.logits(stream.tasks[0].train.features(), [0, 2])


def test_the_loss_by_its_formula(small_backbone, make_stream, file):
    method = build(small_backbone, make_stream().scenario, file, similarity_weight=0.7)
    generator = torch.Generator().manual_seed(0)
    concept, head, rows, bank = (torch.randn(n, m, generator=generator) for n, m in ((5, 24), (3, 5), (6, 24), (5, 24)))
    labels, method.bank = torch.tensor([0, 1, 2, 0, 1, 2]), bank
    scores = torch.stack([concept @ (row / row.norm()) for row in rows])
    likeness = 0.0
    for j in range(5):
        q, p = torch.stack([(row @ bank[j]) ** 3 for row in rows]), scores[:, j] ** 3
        likeness += float(q @ p / q.norm() / p.norm())
    sparse = 0.001 * (0.99 * head.abs().sum() + 0.5 * 0.01 * head.square().sum())
    expected = F.cross_entropy(scores @ head.T, labels) - 0.7 * likeness / 5 + sparse
    torch.testing.assert_close(method.loss(Layers(concept, head), rows, labels), expected)


def test_old_classes_borrow_the_features_of_the_new_class_that_is_like_their_prompt(small_backbone, make_stream, file):
    stream = make_stream(sizes=(2, 2))
    method = teach(build(small_backbone, stream.scenario, file), stream.tasks[0])
    task = stream.tasks[1]
    features = F.normalize(task.train.features(), dim=-1)
    groups = [features[task.train.labels == c] for c in task.classes]
    relation = method.relation(groups)
    for c, r in enumerate(relation):
        text = small_backbone.encode_text(stream.scenario.prompts([c]))[0]
        assert r == int(torch.stack([F.cosine_similarity(text, group.mean(dim=0), dim=0) for group in groups]).argmax())
    method.gaussians.add(groups)
    rows, labels = method.feature_set(task, groups, [1, 0])
    assert labels.tolist() == [2] * 5 + [3] * 5 + [0] * 5 + [1] * 5
    means = method.gaussians.means
    torch.testing.assert_close(rows[10:15], groups[1] - means[3] + means[0])
    torch.testing.assert_close(rows[15:], groups[0] - means[2] + means[1])


def test_old_rows_are_copied_and_go_on_training(small_backbone, make_stream, file):
    stream = make_stream(sizes=(2, 2))
    method = teach(build(small_backbone, stream.scenario, file), stream.tasks[0])
    layer, head = method.concept_layer.clone(), method.head.clone()
    method.bank = torch.cat([method.bank, method.bank])
    grown = method.grown(stream.tasks[1])
    assert torch.equal(grown.concept[:4], layer) and torch.equal(grown.head[:2, :4], head)
    assert 0 < float(grown.head[2:].abs().max()) <= 8**-0.5 and float(grown.concept[4:].abs().max()) <= 24**-0.5
    method.bank = method.bank[:4]
    teach(method, stream.tasks[1])
    assert not torch.equal(method.concept_layer[:4], layer) and not torch.equal(method.head[:2, :4], head)


def test_each_step_has_samples_of_two_old_classes_in_turn(small_backbone, make_stream, file, monkeypatch):
    stream = make_stream(sizes=(3, 1))
    method = teach(build(small_backbone, stream.scenario, file, samples_per_class=2), stream.tasks[0])
    seen, samples = [], method.samples

    def recorded(old, task, step):
        rows, labels = samples(old, task, step)
        assert rows.shape == (4, 24) and labels.tolist() == old.repeat_interleave(2).tolist()
        seen.append(old.tolist())
        return rows, labels

    monkeypatch.setattr(method, "samples", recorded)
    teach(method, stream.tasks[1])  # 5 images and 3 times 5 borrowed features: 5 steps in each of 2 epochs
    order = Draws("test", "clg-cbm", 0).permutation(3, "replayed classes", 1).tolist()
    expected = [[order[2 * i % 3], order[(2 * i + 1) % 3]] for i in range(5)]
    assert seen == expected * 2


def test_rates_fall_after_milestones(small_backbone, make_stream, file, monkeypatch):
    rates, step = [], torch.optim.Adam.step

    def recorded(optimiser, *rest):
        rates.append(optimiser.param_groups[0]["lr"])
        step(optimiser, *rest)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    stream = make_stream()
    options = {"batch_size": 100, "first_lr": 0.5, "later_lr": 0.25, "milestones": (1, 2), "search_lr": 0.03}
    teach(build(small_backbone, stream.scenario, file, **options), *stream.tasks)
    assert rates == pytest.approx([0.03] * 2 + [0.5, 0.05, 0.005] + [0.03] * 2 + [0.25, 0.025])


def test_it_learns_a_second_task_without_losing_the_first(small_backbone, make_stream, file):
    stream = make_stream(sizes=(3, 3), per_class=12)
    options = {"first_epochs": 60, "later_epochs": 60, "first_lr": 0.02, "later_lr": 0.02, "milestones": (30, 40, 50)}
    method = teach(build(small_backbone, stream.scenario, file, **options), *stream.tasks)
    assert all(accuracy(method, task, range(6)) > 0.8 for task in stream.tasks)


def test_tasks_of_any_size_and_a_class_of_one_image(small_backbone, make_stream, file):
    stream = make_stream(sizes=(1, 2, 1), per_class=1)
    method = teach(build(small_backbone, stream.scenario, file), *stream.tasks)
    assert torch.isfinite(method.logits(stream.joined().train.features(), range(4))).all()


def test_a_limit_on_training_images_is_shared_by_search_and_training(small_backbone, make_stream, file, monkeypatch):
    stream = make_stream()  # 10 images a task
    method = build(small_backbone, dataclasses.replace(stream.scenario, images_per_task=25), file)
    steps, loss, search = [], method.loss, method.search_loss
    monkeypatch.setattr(method, "loss", lambda *given: steps.append("train") or loss(*given))
    monkeypatch.setattr(method, "search_loss", lambda *given: steps.append("search") or search(*given))
    teach(method, stream.tasks[0])  # 20 and 30 rows wanted: 10 and 15 allowed
    assert steps == ["search"] * 3 + ["train"] * 4


def test_resumed_after_any_task_it_ends_with_the_same_numbers(small_backbone, make_stream, file):
    stream = make_stream(sizes=(2, 1, 2))
    whole, states = build(small_backbone, stream.scenario, file), []
    for task in stream.tasks:
        teach(whole, task)
        states.append({name: value.clone() for name, value in whole.state_dict().items()})
    for done, state in enumerate(states, start=1):
        resumed = build(small_backbone, stream.scenario, file)
        resumed.load_state_dict(state)
        teach(resumed, *stream.tasks[done:])
        x = stream.tasks[0].train.features()
        assert torch.equal(resumed.logits(x, range(5)), whole.logits(x, range(5)))


def test_without_a_file_it_says_how_to_give_one(small_backbone, make_stream):
    with pytest.raises(BenchError, match="--set clg-cbm.concepts=FILE"):
        build(small_backbone, make_stream().scenario, None)


def test_a_run_that_diverges_is_named(small_backbone, make_stream, file):
    stream = make_stream()
    with pytest.raises(RunFailure, match="not finite"):
        teach(build(small_backbone, stream.scenario, file, first_lr=float("inf")), stream.tasks[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"kept_per_class": 0}, {"search_epochs": 0}, {"first_epochs": 0}, {"later_epochs": 0}, {"samples_per_class": 0},
        {"batch_size": 1}, {"covariance_ridge": -1.0}, {"similarity_weight": -1.0},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BenchError):
        CLGCBM.Settings(**wrong)


@pytest.mark.parametrize(
    "protocol, epochs, rates",
    [
        ("cifar100-10x10", (61, 61), (0.001, 0.001)), ("cifar100-b50-10x5", (8, 2), (0.001, 0.001)),
        ("cub200-20x10", (60, 60), (0.001, 0.001)), ("flowers102-10x10", (60, 60), (0.002, 0.002)),
        ("cars196-14x14", (60, 60), (0.001, 0.001)), ("cars196-b100-9x10", (60, 20), (0.01, 0.002)),
    ],
)  # fmt: skip
def test_authors_settings(protocol, epochs, rates):
    s = CLGCBM.settings_for(protocol)
    assert ((s.first_epochs, s.later_epochs), (s.first_lr, s.later_lr)) == (epochs, rates) and s.concepts is None
    assert (s.kept_per_class, s.search_epochs, s.search_lr, s.division_power, s.batch_size) == (10, 31, 0.01, 5, 64)
    assert (s.milestones, s.samples_per_class, s.similarity_weight) == ((30, 40, 50), 1, 1)
