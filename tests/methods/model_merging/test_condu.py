from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.fine_tuning.finetune import FineTune
from methods.model_merging.condu import TOKENS, ConDU
from methods.shared.pixels import random_crops
from methods.zero_shot import ZeroShot

QUICK = {"lr": 1e-3, "iterations": 3, "warmup": 1, "batch_size": 4, "crop_scale": 1.0}
KNOWN, UNKNOWN = "task-incremental", "class-incremental"
CLOSE = {"rtol": 1e-4, "atol": 1e-3}


def build(backbone, scenario, **settings):
    return ConDU(ConDU.Settings(**{**QUICK, **settings}), backbone, scenario, Draws("test", "condu", 0))


def taught(backbone, stream, tasks=None, **settings):
    method = build(backbone, stream.scenario, **settings)
    for task in stream.tasks[:tasks]:
        method.learn(task)
    return method


@pytest.fixture
def three_tasks(make_stream):
    return lambda kind=KNOWN: make_stream(kind, sizes=(2, 2, 2), per_class=3)


def scores_of(clip, method, pixels, classes):
    """By any CLIP: scaled cosines with the mean of all templates."""
    backbone = method.backbone
    vectors = backbone.classifier(method.scenario.prompts_of(classes), clip=clip)
    with torch.no_grad():
        return backbone.logit_scale * F.normalize(clip.encode_image(pixels), dim=-1) @ vectors.T


def initial_scores(method, pixels, classes):
    return scores_of(method.backbone.clip, method, pixels, classes)


def expert_scores(method, task, pixels, classes):
    """By an expert that is rebuilt here."""
    clip = method.backbone.trainable_copy()
    weights, change = dict(clip.named_parameters()), method.layout.tensors(method.changes.change(task))
    with torch.no_grad():
        for name, own in change.items():
            weights[name] += own
    return scores_of(clip, method, pixels, classes)


# -- experts ----------------------------------------------------------------------------------------------------


def test_every_expert_is_fine_tuning_from_the_initial_clip(small_backbone, three_tasks, monkeypatch):
    stream, changes = three_tasks(), []
    method = build(small_backbone, stream.scenario)
    add = method.changes.add
    monkeypatch.setattr(method.changes, "add", lambda change: changes.append(change) or add(change))
    for task, owner in zip(stream.tasks, range(3)):
        method.learn(task)
        method.logits(task.train.pixels(), task.classes)  # lends the model in training to an expert
        alone = FineTune(FineTune.Settings(**QUICK), small_backbone, stream.scenario, Draws("test", "condu", 0))
        alone.learn(task)
        assert torch.equal(changes[owner], method.layout.read(alone.clip) - method.initial())


def test_only_tokens_of_training_prompts_are_held_and_no_other_moves(small_backbone, three_tasks):
    stream = three_tasks()
    method = taught(small_backbone, stream, tasks=1)
    rows = method.layout.rows[TOKENS]
    assert 5 < len(rows) < 30 and method.layout.held[TOKENS] == (len(rows), 32)
    plain = FineTune(FineTune.Settings(**QUICK), small_backbone, stream.scenario, Draws("test", "condu", 0))
    plain.learn(stream.tasks[0])
    moved = (plain.clip.token_embedding.weight != small_backbone.clip.token_embedding.weight).any(dim=1)
    assert 0 < int(moved.sum()) and set(torch.nonzero(moved).flatten().tolist()) <= set(rows.tolist())


def test_with_weight_decay_every_token_moves_and_is_held(small_backbone, three_tasks):
    method = taught(small_backbone, three_tasks(), tasks=1, weight_decay=0.1)
    assert TOKENS not in method.layout.rows
    share = (method.layout.tensors(method.changes.change(0))[TOKENS] != 0).float().mean()
    assert float(share) > 0.9


def test_one_tower_may_be_trained_alone(small_backbone, three_tasks):
    stream = three_tasks()
    method = taught(small_backbone, stream, train_mode="image")
    assert all(name.startswith("visual.") for name in method.layout.shapes)
    pixels, classes = stream.tasks[0].train.pixels(), [0, 1]
    torch.testing.assert_close(method.logits(pixels, classes), expert_scores(method, 0, pixels, classes), **CLOSE)


# -- prototypes -------------------------------------------------------------------------------------------------


def prototypes_by_hand(method, task, features):
    """norm of half the sum of two means that are not normalised themselves."""
    found = []
    for c in task.classes:
        images = torch.stack([f / f.norm() for f, label in zip(features, task.train.labels) if label == c]).mean(dim=0)
        prompts = [template.format(method.scenario.class_names[c]) for template in method.scenario.templates[c]]
        texts = torch.stack([f / f.norm() for f in method.backbone.encode_text(prompts)]).mean(dim=0)
        mean = (images + texts) / 2
        found.append(mean / mean.norm())
    return torch.stack(found)


def test_prototypes_are_of_the_initial_clip(small_backbone, three_tasks):
    stream = three_tasks()
    method = taught(small_backbone, stream)
    for task in stream.tasks:
        by_hand = prototypes_by_hand(method, task, small_backbone.encode_images(task.train.pixels()))
        torch.testing.assert_close(method.prototypes[list(task.classes)], by_hand)


def test_prototypes_come_from_crops_as_released_or_from_whole_images(small_backbone, three_tasks):
    stream = three_tasks()
    task = stream.tasks[0]
    cropped = random_crops(task.train.pixels(), 0.5, Draws("test", "condu", 0), "prototype crop", 0, 0)
    for crops, pixels in ((True, cropped), (False, task.train.pixels())):
        method = taught(small_backbone, stream, tasks=1, crop_scale=0.5, prototype_crops=crops)
        by_hand = prototypes_by_hand(method, task, small_backbone.encode_images(pixels))
        torch.testing.assert_close(method.prototypes[:2], by_hand, rtol=1e-4, atol=1e-5)


def test_a_class_without_an_image_is_named(small_backbone, three_tasks):
    stream = three_tasks()
    first = stream.tasks[0]
    lacking = replace(first, train=first.train.chosen(torch.nonzero(first.train.labels == 0).flatten()))
    with pytest.raises(BenchError, match="'green' has no training image"):
        build(small_backbone, stream.scenario).learn(lacking)


# -- scores -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KNOWN, UNKNOWN])
def test_before_learning_it_is_zero_shot_clip(kind, small_backbone, three_tasks):
    stream = three_tasks(kind)
    pixels = stream.tasks[0].train.pixels()
    zero_shot = ZeroShot(None, small_backbone, stream.scenario, Draws("test", "zero-shot", 0))
    expected = zero_shot.logits(small_backbone.encode_images(pixels), [3, 0])
    torch.testing.assert_close(build(small_backbone, stream.scenario).logits(pixels, [3, 0]), expected)


def test_the_first_cell_is_the_experts_and_as_released_the_initial_clips(small_backbone, three_tasks):
    """The released evaluation forgets to rebuild the expert while there is only one."""
    stream = three_tasks()
    pixels, own = stream.tasks[0].train.pixels(), [0, 1]
    right, released = (taught(small_backbone, stream, tasks=1, faithful_first_task=on) for on in (False, True))
    expert = expert_scores(right, 0, pixels, own)
    assert not torch.allclose(expert, initial_scores(right, pixels, own), rtol=1e-2)
    torch.testing.assert_close(right.logits(pixels, own), expert, **CLOSE)
    torch.testing.assert_close(released.logits(pixels, own), initial_scores(released, pixels, own), **CLOSE)
    torch.testing.assert_close(released.logits(pixels, [2, 3]), right.logits(pixels, [2, 3]), **CLOSE)  # only that cell
    for method in (right, released):
        method.learn(stream.tasks[1])
    torch.testing.assert_close(released.logits(pixels, own), expert_scores(right, 0, pixels, own), **CLOSE)


def test_a_learned_task_is_scored_by_its_expert_in_any_order_of_asking(small_backbone, three_tasks):
    stream = three_tasks()
    method = taught(small_backbone, stream, tasks=2)
    pixels = stream.tasks[0].train.pixels()
    for task in (0, 1, 0):
        own = list(stream.tasks[task].classes)
        torch.testing.assert_close(method.logits(pixels, own), expert_scores(method, task, pixels, own), **CLOSE)
    mixed = method.logits(pixels, [3, 0, 4])
    for column, c in enumerate([3, 0, 4]):
        torch.testing.assert_close(mixed[:, [column]], method.logits(pixels, [c]), **CLOSE)


def mean_by_hand(method, pixels, classes, k):
    """Image by image: the initial CLIP and the experts of the k tasks with the nearest prototype, unweighted."""
    features = F.normalize(method.backbone.encode_images(pixels), dim=-1)
    rows = []
    for image, feature in zip(pixels, features):
        nearest = [
            max(float(feature @ method.prototypes[c]) for c in range(2 * task, 2 * task + 2))
            for task in range(len(method.changes))
        ]
        chosen = sorted(range(len(nearest)), key=lambda task: -nearest[task])[:k]
        one = image.unsqueeze(0)
        of_models = [initial_scores(method, one, classes), *(expert_scores(method, task, one, classes) for task in chosen)]
        rows.append(torch.stack(of_models).mean(dim=0))
    return torch.cat(rows)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_without_a_known_task_the_nearest_experts_and_the_initial_clip_are_averaged(k, small_backbone, three_tasks):
    stream = three_tasks(UNKNOWN)
    method = taught(small_backbone, stream, experts=k)
    pixels = torch.cat([task.train.pixels()[::3] for task in stream.tasks])
    torch.testing.assert_close(
        method.logits(pixels, [5, 0, 3]), mean_by_hand(method, pixels, [5, 0, 3], k), rtol=1e-3, atol=1e-2
    )


def test_an_unlearned_task_is_scored_as_published_or_by_the_initial_clip(small_backbone, three_tasks):
    stream = three_tasks()
    method = taught(small_backbone, stream, tasks=2)
    pixels, later = stream.tasks[2].train.pixels(), [4, 5]
    mean = mean_by_hand(method, pixels, later, 4)
    torch.testing.assert_close(method.logits(pixels, later), mean, rtol=1e-3, atol=1e-2)
    method.settings = replace(method.settings, scores="task")
    torch.testing.assert_close(method.logits(pixels, later), initial_scores(method, pixels, later), **CLOSE)
    method.settings = replace(method.settings, scores="similarity")
    own = mean_by_hand(method, pixels, [0, 1], 4)
    torch.testing.assert_close(method.logits(pixels, [0, 1]), own, rtol=1e-3, atol=1e-2)
    assert not torch.allclose(own, expert_scores(method, 0, pixels, [0, 1]), rtol=1e-2)


def test_an_image_goes_only_through_the_experts_that_it_has_chosen(small_backbone, three_tasks):
    stream = three_tasks(UNKNOWN)
    method = taught(small_backbone, stream, experts=1)
    pixels = torch.cat([task.train.pixels() for task in stream.tasks])
    before = small_backbone.image_passes
    method.logits(pixels, [0])
    assert small_backbone.image_passes - before == 2 * len(pixels)


def test_a_score_depends_on_no_other_image_and_no_other_class(small_backbone, three_tasks):
    stream = three_tasks(UNKNOWN)
    method = taught(small_backbone, stream, experts=1)
    pixels = torch.cat([task.train.pixels()[:2] for task in stream.tasks])
    together = method.logits(pixels, [0, 1, 2, 3, 4, 5])
    alone = torch.cat([method.logits(image.unsqueeze(0), [4, 2]) for image in pixels])
    torch.testing.assert_close(together[:, [4, 2]], alone, **CLOSE)


def test_the_released_evaluation_of_fine_tuning_crops_test_images_here_too(small_backbone, three_tasks):
    stream = three_tasks()
    settings = {"crop_scale": 0.5, "prototype_crops": False}
    plain, cropping = (
        taught(small_backbone, stream, tasks=1, faithful_eval_crop=on, **settings) for on in (False, True)
    )
    pixels = stream.tasks[0].train.pixels()
    cropped = random_crops(pixels, 0.5, cropping.draws, "test crop")
    torch.testing.assert_close(cropping.logits(pixels, [0, 1]), plain.logits(cropped, [0, 1]), **CLOSE)


def test_it_learns_its_tasks_and_keeps_them(small_backbone, make_stream):
    stream = make_stream(KNOWN, sizes=(3, 3), per_class=6)
    accuracies = []
    for method in (build(small_backbone, stream.scenario), taught(small_backbone, stream, iterations=40, lr=2e-3)):
        for task in stream.tasks:
            scores = method.logits(task.train.pixels(), task.classes)
            right = scores.argmax(dim=1) + task.classes[0] == task.train.labels
            accuracies.append(float(right.float().mean()))
    assert sum(accuracies[2:]) > max(1.6, sum(accuracies[:2]) + 0.3)


# -- what is kept -----------------------------------------------------------------------------------------------


def test_kept_are_one_change_and_a_bit_for_each_number_and_task(small_backbone, three_tasks):
    stream = three_tasks()
    method = taught(small_backbone, stream)
    d = method.layout.size
    shapes = {name: tuple(value.shape) for name, value in method.state_dict().items()}
    assert shapes == {
        "class_vectors": (6, 24),
        "prototypes": (6, 24),
        "changes.unified": (d,),
        "changes.bits": (3, -(-d // 8)),
        "changes.scales": (3,),
    }


@pytest.mark.parametrize("kind", [KNOWN, UNKNOWN])
def test_experts_come_back_from_what_is_kept(kind, small_backbone, three_tasks):
    stream = three_tasks(kind)
    method, again = taught(small_backbone, stream, tasks=2), build(small_backbone, stream.scenario)
    pixels = stream.tasks[0].train.pixels()
    again.logits(pixels, [0])  # with class vectors of other weights
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.logits(pixels, [0, 3, 5]), method.logits(pixels, [0, 3, 5]))
    for one in (again, method):
        one.learn(stream.tasks[2])
    assert torch.equal(again.changes.unified, method.changes.unified)
    assert torch.equal(again.logits(pixels, [0, 3, 5]), method.logits(pixels, [0, 3, 5]))


# -- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"experts": 0}, {"crop_scale": 0.0}, {"accumulate": 0}])
def test_impossible_settings_are_refused_in_one_line(wrong):
    with pytest.raises(BenchError) as caught:
        ConDU.Settings(**wrong)
    assert "\n" not in str(caught.value)


def test_recipes_are_the_authors():
    whole, five = (ConDU.settings_for(name) for name in ("mtil-order1", "mtil-order2-5shot"))
    assert (whole.iterations, whole.lr, dict(whole.lr_of_task)) == (1000, 1e-5, {"aircraft": 5e-5, "mnist": 5e-5})
    assert (five.iterations, dict(five.lr_of_task)) == (500, {"aircraft": 5e-5, "oxford-pet": 5e-5})
    assert (whole.label_smoothing, whole.warmup, whole.weight_decay, whole.experts) == (0.2, 100, 0.0, 4)
