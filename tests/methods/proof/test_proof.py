"""PROOF: the fusion and the scores against their formulas, what is frozen, what is kept."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.learning.evaluation import evaluate
from bench.streams.stream import Stream
from bench.system.randomness import Draws
from methods.proof.cross_modal_fusion import CrossModalFusion
from methods.proof.proof import PROOF, PROOFSettings
from methods.shared.selection import herding
from tests.methods.teaching import teach

QUICK = PROOFSettings(epochs=2, batch_size=4, learning_rate=0.01)


def build(stream, backbone, settings=QUICK, seed=0, **budget) -> PROOF:
    return PROOF(settings, backbone, replace(stream.scenario, **budget), Draws("test", "proof", seed)).eval()


def attend(fusion: CrossModalFusion, sequence: torch.Tensor) -> torch.Tensor:
    """The attention layer over one sequence (rows, d), row by row."""
    q, k, v = (sequence @ part.weight.T for part in (fusion.queries, fusion.keys, fusion.values))
    mixed = torch.stack([torch.stack([row @ key / len(key) ** 0.5 for key in k]).softmax(dim=0) @ v for row in q])
    x = sequence + mixed @ fusion.output.weight.T + fusion.output.bias
    standard = (x - x.mean(dim=1, keepdim=True)) / (x.var(dim=1, keepdim=True, correction=0) + 1e-5).sqrt()
    return standard * fusion.norm.weight + fusion.norm.bias


def fusion_parts(method: PROOF, images: torch.Tensor, texts: torch.Tensor):
    """a, T and Q of a batch, one image at a time."""
    prototypes = F.normalize(method.project_images(method.prototypes), dim=-1)
    sequences = [torch.cat([u[None], texts, prototypes, *method.contexts]) for u in images]
    outputs = torch.stack([attend(method.fusion, sequence) for sequence in sequences])
    n = len(texts)
    return outputs[:, 0], outputs[:, 1 : 1 + n].mean(dim=0), outputs[:, 1 + n : 1 + 2 * n].mean(dim=0)


@pytest.mark.parametrize("dropout", [0.0, 1e-12])  # the second takes the way of training, and drops nothing
def test_fusion_is_attention_over_the_whole_sequence(dropout):
    fusion = CrossModalFusion(8, dropout, Draws("test", "fusion", 0))
    generator = torch.Generator().manual_seed(0)
    images, shared = torch.randn(3, 8, generator=generator), torch.randn(5, 8, generator=generator)
    own, means = fusion(images, shared, wanted=4)
    outputs = torch.stack([attend(fusion, torch.cat([x[None], shared])) for x in images])
    torch.testing.assert_close(own, outputs[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(means, outputs[:, 1:5].mean(dim=0), rtol=1e-4, atol=1e-5)


def test_both_ways_through_the_fusion_have_the_same_gradients():
    fusion = CrossModalFusion(8, 1e-12, Draws("test", "fusion", 0))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 8, generator=generator, requires_grad=True)
    shared = torch.randn(5, 8, generator=generator, requires_grad=True)
    inputs = [images, shared, *fusion.parameters()]

    def gradients():
        own, means = fusion(images, shared, wanted=4)
        return torch.autograd.grad(own.square().sum() + means[:, 0].sum(), inputs)

    for one, other in zip(gradients(), (fusion.eval(), gradients())[1]):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only():
    fusion, draws = CrossModalFusion(8, 0.5, Draws("test", "fusion", 0)), Draws("test", "fusion", 0)
    images, shared = torch.randn(3, 8, generator=draws.generator(1)), torch.randn(5, 8, generator=draws.generator(2))
    assert not torch.equal(fusion(images, shared, 4)[0], fusion(images, shared, 4)[0])
    fusion.eval()
    assert torch.equal(fusion(images, shared, 4)[0], fusion(images, shared, 4)[0])


def test_the_three_losses(small_backbone, make_stream):
    stream = make_stream()
    method = teach(build(stream, small_backbone), *stream.tasks)
    images, columns, classes = stream.tasks[1].train.features()[::3], torch.tensor([0, 0, 1, 1]), torch.tensor([2, 3])
    u = F.normalize(sum(p(images) for p in method.image_projections), dim=-1)
    prompts = small_backbone.encode_text([f"a photo of a {name}." for name in stream.scenario.class_names])
    v = F.normalize(sum(p(prompts) for p in method.text_projections), dim=-1)
    a, texts, prototypes = fusion_parts(method, u, v)
    scale = method.logit_scale.exp()
    pairs = torch.stack([torch.stack([scale * (u[i] @ v[classes[columns[j]]]) for j in range(4)]) for i in range(4)])
    per_image = [-pairs[i].log_softmax(dim=0)[i] for i in range(4)]
    per_text = [-pairs[:, i].log_softmax(dim=0)[i] for i in range(4)]
    expected = (
        F.cross_entropy(a @ texts[2:].T, columns),
        torch.stack(per_image + per_text).mean(),
        F.cross_entropy(a @ prototypes[2:].T, columns),
    )
    for found, wanted in zip(method.losses(classes, images, columns), expected):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unit", [False, True])
def test_the_score_is_the_sum_of_three_parts(small_backbone, make_stream, unit):
    stream = make_stream()
    method = teach(build(stream, small_backbone, replace(QUICK, normalise_at_test=unit)), *stream.tasks)
    batch = stream.tasks[0].train.features()[:3]
    with torch.no_grad():
        u = sum(p(batch) for p in method.image_projections)
        u = F.normalize(u, dim=-1) if unit else u
        texts = []
        for name in stream.scenario.class_names:
            raw = small_backbone.encode_text([f"a photo of a {name}.", f"a {name} picture."])
            texts.append(F.normalize(F.normalize(sum(p(raw) for p in method.text_projections), dim=-1).mean(dim=0), dim=0))
        w = torch.stack(texts)
        a, texts, prototypes = fusion_parts(method, u, w)
        expected = u @ w.T + a @ texts.T + a @ prototypes.T
    torch.testing.assert_close(method.logits(batch, [3, 0]), expected[:, [3, 0]], rtol=1e-3, atol=1e-3)


def test_prototypes_are_means_of_unit_embeddings_taken_once(small_backbone, make_stream):
    stream = make_stream()
    method = teach(build(stream, small_backbone), stream.tasks[0])
    first = stream.tasks[0].train
    for c in (0, 1):
        expected = F.normalize(first.features()[first.labels == c], dim=-1).mean(dim=0)
        torch.testing.assert_close(method.prototypes[c], expected)
    before = method.prototypes.clone()
    teach(method, stream.tasks[1])
    assert len(method.prototypes) == 4 and torch.equal(method.prototypes[:2], before)


@pytest.mark.parametrize("freeze", [False, True])
def test_what_earlier_tasks_leave_behind_stays_but_for_texts(small_backbone, make_stream, freeze):
    stream = make_stream()
    method = teach(build(stream, small_backbone, replace(QUICK, freeze_old_text=freeze)), stream.tasks[0])
    before = {name: value.detach().clone() for name, value in method.named_parameters()}
    teach(method, stream.tasks[1])
    stayed = {name for name, value in method.named_parameters() if name in before and torch.equal(value, before[name])}
    frozen = {"image_projections.0.weight", "image_projections.0.bias", "contexts.0"}
    assert stayed == frozen | ({"text_projections.0.weight", "text_projections.0.bias"} if freeze else set())


def test_scores_depend_on_the_batch_and_single_images_do_not(small_backbone, make_stream):
    stream = make_stream()
    method = teach(build(stream, small_backbone), *stream.tasks)
    features = stream.tasks[0].train.features()
    assert not torch.allclose(method.logits(features, range(4))[:1], method.logits(features[:1], range(4)), atol=1e-4)
    assert str(method.test_batches) == "mixed, 64 images"
    assert str(build(stream, small_backbone, replace(QUICK, test_batches="single")).test_batches) == "single images"


def test_composition_is_what_is_evaluated(small_backbone, make_stream):
    """Every composition scores every test image once, and single images are scored alone."""
    stream = make_stream()
    stream = Stream(stream.scenario, tuple(replace(task, test=task.train) for task in stream.tasks))
    method = teach(
        build(stream, small_backbone, replace(QUICK, test_batches="single")), *[t.for_training() for t in stream.tasks]
    )
    cells = {(cell.eval_task, cell.candidates): cell for cell in evaluate(method, stream, after_task=1)}
    alone = torch.cat([method.logits(x[None], range(4)) for x in stream.tasks[0].test.features()])
    assert cells[0, "seen"].prediction.tolist() == alone.argmax(dim=-1).tolist()


def test_unlearned_classes_are_scored_by_zero_shot_clip(small_backbone, make_stream):
    stream = make_stream()
    features = stream.tasks[0].train.features()
    text = small_backbone.classifier(stream.scenario.prompts_of(range(4)))
    expected = small_backbone.logit_scale * F.normalize(features, dim=-1) @ text.T
    method = build(stream, small_backbone)
    torch.testing.assert_close(method.logits(features, [2, 1]), expected[:, [2, 1]])
    teach(method, stream.tasks[0])
    found = method.logits(features, [3, 0, 2])
    torch.testing.assert_close(found[:, [0, 2]], expected[:, [3, 2]])
    assert not torch.allclose(found[:, 1], expected[:, 0])


def test_exemplars_are_chosen_by_herding_and_shrink_from_the_end(small_backbone, make_stream):
    stream = make_stream(per_class=8)
    method = teach(build(stream, small_backbone, exemplars_total=8), stream.tasks[0])
    train = stream.tasks[0].train
    own = train.features()[train.labels == 1]
    expected = own[torch.from_numpy(herding(own.numpy(), 4))]
    assert torch.equal(method.memory.images[method.memory.labels == 1, 0], expected)
    teach(method, stream.tasks[1])
    assert method.memory.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(method.memory.images[method.memory.labels == 1, 0], expected[:2])
    assert method.exemplar_bytes() == 8 * small_backbone.embedding_width * 4


def test_a_resumed_run_ends_with_the_same_numbers_and_exemplars(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2, 2))
    whole = teach(build(stream, small_backbone, exemplars_per_class=2), stream.tasks[0])
    resumed = build(stream, small_backbone, exemplars_per_class=2)
    resumed.grow(stream.tasks[0])
    resumed.load_state_dict(whole.state_dict())
    features = stream.tasks[1].train.features()
    for task in stream.tasks[1:]:
        teach(whole, task), teach(resumed, task)
        assert torch.equal(resumed.logits(features, range(6)), whole.logits(features, range(6)))
        assert torch.equal(resumed.memory.images, whole.memory.images)


def test_the_rate_follows_a_cosine_over_epochs(small_backbone, make_stream):
    method = build(make_stream(), small_backbone, replace(QUICK, cosine_floor=0.0))
    method.steps_of_epoch = 2
    assert method.schedule(1.0, steps=8, phase="") == pytest.approx([1, 1, 0.8535534, 0.8535534, 0.5, 0.5, 0.1464466, 0.1464466])
    method.settings = replace(method.settings, cosine_floor=0.2)
    assert method.schedule(10.0, steps=4, phase="") == pytest.approx([10, 10, 6, 6])


def test_a_class_of_one_image_and_a_budget_of_images(small_backbone, make_stream):
    stream = make_stream(per_class=1, sizes=(1, 2))
    method = build(stream, small_backbone, images_per_task=4)
    steps, losses = [], method.losses
    method.losses = lambda *arguments: steps.append(1) or losses(*arguments)
    teach(method, *stream.tasks)
    assert len(steps) == 2  # one step a task: 2 epochs of one batch would be two, 4 images allow one
    assert bool(torch.isfinite(method.logits(stream.tasks[0].train.features(), range(3))).all())


def test_learning_and_scoring_use_cached_features_only(small_backbone, make_stream):
    stream = make_stream()
    for task in stream.tasks:
        task.train.features()
    passes = small_backbone.image_passes
    method = teach(build(stream, small_backbone, exemplars_per_class=1), *stream.tasks)
    method.logits(stream.tasks[0].train.features(), range(4))
    assert small_backbone.image_passes == passes


@pytest.mark.parametrize("options", [{"dropout": 1.0}, {"context_prompts": -1}, {"test_batch_size": 0}, {"balanced_epochs": 1}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(BenchError, match=next(iter(options))):
        PROOFSettings(**options)
