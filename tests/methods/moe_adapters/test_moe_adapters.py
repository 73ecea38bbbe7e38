"""MoE-Adapters: the mixture, activate-freeze, DDAS and the choice of routers against their formulas."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import alexnet

from bench.clip.backbone import Backbone, encode_tokens
from bench.errors import BenchError
from bench.streams.reference import Reference, ReferenceNames
from bench.system.randomness import Draws
from methods.moe_adapters.alexnet_features import AlexNetFeatures
from methods.moe_adapters.domain_autoencoders import DomainAutoencoders
from methods.moe_adapters.domain_selection import ORIGINAL
from methods.moe_adapters.moe_adapters import MoEAdapters, MoEAdaptersSettings
from methods.moe_adapters.towers import AdaptedTowers, MixtureOfAdapters
from tests.methods.teaching import teach

QUICK = MoEAdaptersSettings(bottleneck=4, crop_scale=1.0, epochs=2, batch_size=4, lr=0.01, warmup=1)
SEVERAL = replace(
    QUICK,
    **{"experts": 4, "routers": "per_task", "freeze_used": 1, "domain_selection": True, "domain_features": "clip"},
    **{"domain_width": 3, "domain_iterations": 20, "reference_iterations": 20, "domain_threshold": 1.0},
)


def build(stream, backbone, settings=QUICK, seed=0, **budget) -> MoEAdapters:
    return MoEAdapters(settings, backbone, replace(stream.scenario, **budget), Draws("test", "moe-adapters", seed)).eval()


def drawn_mixture(experts=4, chosen=2, width=6) -> MixtureOfAdapters:
    """A mixture whose weights are all drawn, since most start at zero."""
    mixture = MixtureOfAdapters(width, experts, chosen, bottleneck=3, scale=0.1, dropout=0.1).eval()
    mixture.add_router()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in mixture.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator))
    return mixture


# -- the mixture ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noisy", [False, True])
def test_a_sample_gets_the_weighted_output_of_its_experts(noisy):
    mixture, generator = drawn_mixture(), torch.Generator().manual_seed(1)
    h, noise = torch.randn(5, 3, 6, generator=generator), torch.randn(5, 4, generator=generator) if noisy else None
    found = mixture(h, 0, noise)
    for i in range(5):
        z = h[i, 0] @ mixture.routers[0]
        if noisy:
            z = z + noise[i] * (torch.log1p((h[i, 0] @ mixture.noise_weights[0]).exp()) + 0.01)
        best = sorted(range(4), key=lambda e: -float(z[e].detach()))[:2]
        gates = torch.stack([z[e] for e in best]).softmax(dim=0)
        expected = 0
        for gate, e in zip(gates, best):
            expert = mixture.experts[e]
            hidden = torch.clamp(h[i] @ expert.down.weight.T + expert.down.bias, min=0)
            expected = expected + gate * 0.1 * (hidden @ expert.up.weight.T + expert.up.bias)
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-5)


def test_ties_go_to_the_first_experts():
    mixture = MixtureOfAdapters(6, 5, 2, bottleneck=3, scale=0.1, dropout=0.1)
    mixture.add_router()
    assert mixture.gates(torch.ones(2, 6), 0, None).tolist() == [[0.5, 0.5, 0, 0, 0]] * 2


def test_an_expert_without_samples_gets_no_gradient():
    mixture = drawn_mixture()
    h = torch.randn(1, 3, 6, generator=torch.Generator().manual_seed(1))
    mixture(h, 0).sum().backward()
    used = (mixture.gates(h[:, 0], 0, None) > 0).any(dim=0).tolist()
    assert {True, False} == set(used)
    for expert, is_used in zip(mixture.experts, used):
        assert all((weights.grad is not None) == is_used for weights in expert.parameters())


def test_dropout_acts_on_the_hidden_layer_in_training_only():
    mixture, h = drawn_mixture(), torch.ones(1, 1, 6)
    assert torch.equal(mixture(h, 0), mixture(h, 0))
    mixture.train()
    assert len({float(mixture(h, 0).detach().sum()) for _ in range(20)}) > 1


def test_untrained_towers_are_clips(small_backbone, make_stream):
    clip, pixels = small_backbone.clip, make_stream().tasks[0].train.pixels()
    towers = AdaptedTowers(small_backbone, 3, 2, 4, 0.1, 0.1, Draws("test", "towers", 0)).eval()
    towers.add_router()
    tokens = small_backbone.tokenize(["a cat.", "a photo of a large dark gray dog."])
    torch.testing.assert_close(towers.image_features(clip, pixels, 0), small_backbone.encode_images(pixels), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(towers.text_features(clip, tokens, 0), encode_tokens(clip, tokens), rtol=1e-4, atol=1e-5)


def test_blocks_and_adapters_compute_in_the_backbones_precision(small_backbone, make_stream):
    full, pixels = small_backbone, make_stream().tasks[0].train.pixels()
    half = Backbone(
        "small", "none", copy.deepcopy(full.clip), full.tokenizer, full.transform, "small:random:0", "cpu", precision="bfloat16"
    )
    towers = AdaptedTowers(half, 3, 2, 4, 0.1, 0.1, Draws("test", "towers", 0)).eval()
    towers.add_router()
    found = towers.image_features(half.clip, pixels, 0)
    assert found.dtype == torch.float32 and not torch.allclose(found, full.encode_images(pixels), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, half.encode_images(pixels), rtol=0, atol=0.02)


def test_without_noise_the_gate_of_a_text_block_is_the_same_for_all_classes(small_backbone, make_stream):
    method = teach(build(make_stream(), small_backbone), make_stream().tasks[0])
    seen = []
    for mixture in method.towers.text:
        mixture.gates = lambda *arguments, gates=mixture.gates: seen.append(gates(*arguments)) or seen[-1]
    method.store_class_vectors()
    assert len(seen) == 2 and all(torch.allclose(gates, gates[:1].expand_as(gates), atol=1e-6) for gates in seen)


# -- class-incremental form -------------------------------------------------------------------------------------


def test_before_learning_it_is_zero_shot_clip(small_backbone, make_stream):
    stream = make_stream()
    pixels = stream.tasks[0].train.pixels()
    unit = F.normalize(small_backbone.encode_images(pixels), dim=-1)
    expected = small_backbone.logit_scale * unit @ small_backbone.classifier(stream.scenario.prompts_of([2, 1])).T
    torch.testing.assert_close(build(stream, small_backbone).logits(pixels, [2, 1]), expected)


def test_scores_are_cosines_of_adapted_images_and_mean_prompts(small_backbone, make_stream):
    stream = make_stream()
    method = teach(build(stream, small_backbone), *stream.tasks)
    clip, pixels = small_backbone.clip, stream.tasks[0].train.pixels()[:3]
    with torch.no_grad():
        images = method.towers.image_features(clip, pixels, 0)
        for column, c in enumerate([3, 0]):
            name = stream.scenario.class_names[c]
            tokens = small_backbone.tokenize([f"a photo of a {name}.", f"a {name} picture."])
            text = F.normalize(method.towers.text_features(clip, tokens, 0), dim=-1).mean(dim=0)
            expected = small_backbone.logit_scale * F.cosine_similarity(images, text[None])
            torch.testing.assert_close(method.logits(pixels, [3, 0])[:, column], expected, rtol=1e-3, atol=1e-3)


def test_a_task_is_learned_among_its_own_classes_with_one_update_more(small_backbone, make_stream):
    stream = make_stream(per_class=5)
    method = build(stream, small_backbone)
    calls, logits = [], method.training_logits
    method.training_logits = lambda pixels, classes, *rest: calls.append((len(pixels), classes)) or logits(pixels, classes, *rest)
    teach(method, stream.tasks[1])
    assert calls == [(4, (2, 3)), (4, (2, 3)), (2, (2, 3))] * 2 + [(4, (2, 3))]


def test_a_budget_of_images_ends_training_early(small_backbone, make_stream):
    stream = make_stream(per_class=5)
    method = build(stream, small_backbone, images_per_task=8)
    calls, logits = [], method.training_logits
    method.training_logits = lambda *arguments: calls.append(1) or logits(*arguments)
    teach(method, stream.tasks[0])
    assert len(calls) == 2


def test_learning_lowers_the_loss(small_backbone, make_stream):
    stream = make_stream(sizes=(4,), per_class=8)
    method = build(stream, small_backbone, replace(QUICK, epochs=10))
    pixels, labels = stream.tasks[0].train.pixels(), stream.tasks[0].train.labels
    before = float(F.cross_entropy(method.logits(pixels, range(4)), labels))
    teach(method, stream.tasks[0])
    assert float(F.cross_entropy(method.logits(pixels, range(4)), labels)) < 0.5 * before


def test_noise_at_test_time_makes_scores_depend_on_the_place_in_the_batch(small_backbone, make_stream):
    stream = make_stream()
    silent, noisy = (build(stream, small_backbone, replace(QUICK, test_noise=noise)) for noise in (False, True))
    assert silent.test_batches is None and str(noisy.test_batches) == "task, 128 images"
    teach(silent, stream.tasks[0]), teach(noisy, stream.tasks[0])
    twice = stream.tasks[0].train.pixels()[[0, 0]]
    torch.testing.assert_close(*silent.logits(twice, range(4)))
    first, second = noisy.logits(twice, range(4))
    assert not torch.allclose(first, second)
    assert torch.equal(noisy.logits(twice, range(4)), torch.stack([first, second]))


def test_cropped_test_images_make_scores_depend_on_the_place_in_the_batch(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, replace(QUICK, crop_scale=0.5, test_transform="zscl_cil_random_crop"))
    assert str(method.test_batches) == "task, 128 images"
    teach(method, stream.tasks[0])
    first, second = method.logits(stream.tasks[0].train.pixels()[[0, 0]], range(4))
    assert not torch.allclose(first, second)


# -- MTIL form --------------------------------------------------------------------------------------------------


def test_the_most_used_experts_are_frozen_after_a_task_and_stay_as_they_are(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, SEVERAL)
    method.grow(stream.tasks[0])
    method.learn(stream.tasks[0])
    for mixtures, frozen in ((method.towers.image, method.frozen_image), (method.towers.text, method.frozen_text)):
        for mixture, row in zip(mixtures, frozen.tolist()):
            assert row.index(True) == max(range(4), key=lambda e: float(mixture.counts[e])) and sum(row) == 1
    first = [row.index(True) for row in method.frozen_image.tolist()]
    before = [{k: v.clone() for k, v in m.experts[e].state_dict().items()} for m, e in zip(method.towers.image, first)]
    routers = [mixture.routers[0].detach().clone() for mixture in method.towers.image]
    # the second task's router starts where the first's is, so that its samples go to the frozen experts too
    method.grow(stream.tasks[1])
    with torch.no_grad():
        for mixture in method.towers.image:
            mixture.routers[1].copy_(mixture.routers[0])
    method.learn(stream.tasks[1])
    for mixture, expert, old, router in zip(method.towers.image, first, before, routers):
        assert mixture.counts[expert] > 0
        assert all(torch.equal(value, old[name]) for name, value in mixture.experts[expert].state_dict().items())
        assert torch.equal(mixture.routers[0], router) and not torch.equal(mixture.routers[1], router)


def test_counts_are_of_training_samples_of_the_task(small_backbone, make_stream):
    stream = make_stream(per_class=5)
    method = teach(build(stream, small_backbone, SEVERAL), *stream.tasks)
    method.logits(stream.tasks[0].train.pixels(), range(4))
    images = 2 * 10 + 4  # two epochs of ten images, and a batch more
    assert all(int(mixture.counts.sum()) == 2 * images for mixture in method.towers.image)
    assert all(int(mixture.counts.sum()) == 2 * 7 * 2 for mixture in method.towers.text)  # seven updates, two classes


def test_an_autoencoder_reconstructs_sigmoids(small_backbone):
    domains = DomainAutoencoders(5, 3, Draws("test", "domains", 0))
    domains.grow(0), domains.grow(1)
    phi = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    found = domains.errors(phi)
    for i in range(4):
        s = 1 / (1 + (-phi[i]).exp())
        for j, domain in enumerate(domains.domains):
            hidden = torch.clamp(domain.encoder.weight @ s + domain.encoder.bias, min=0)
            r = 1 / (1 + (-(domain.decoder.weight @ hidden + domain.decoder.bias)).exp())
            assert float(found[i, j]) == pytest.approx(float((r - s).square().mean().detach()), rel=1e-4)
    assert not torch.allclose(found[:, 0], found[:, 1])


def test_an_autoencoder_knows_its_own_domain():
    domains = DomainAutoencoders(8, 2, Draws("test", "domains", 0))
    generator = torch.Generator().manual_seed(0)
    own = [torch.randn(20, 2, generator=generator) @ (3 * torch.randn(2, 8, generator=generator)) for _ in range(2)]
    rates = []
    step = torch.optim.Adam.step
    torch.optim.Adam.step = lambda optimiser, *rest: rates.append(optimiser.param_groups[0]["lr"]) or step(optimiser, *rest)
    try:
        for index, features in enumerate(own):
            domains.grow(index)
            domains.fit(index, 20, lambda rows: features[rows], 45, 0.05, 1e-4, 10, None, lambda loss, what: None)
    finally:
        torch.optim.Adam.step = step
    assert rates[:45] == pytest.approx([0.05] * 20 + [0.005] * 20 + [0.0005] * 5)
    for index, features in enumerate(own):
        assert float((domains.errors(features).argmin(dim=1) == index).float().mean()) > 0.8


class FixedErrors:
    """Stands for the autoencoders: gives these errors (b, domains)."""

    def __init__(self, errors):
        self.table = torch.tensor(errors)

    def errors(self, features):
        return self.table[: len(features)]


@pytest.mark.parametrize(
    ("reference", "decision", "expected"),
    [
        (None, "image", [0, 1, ORIGINAL, 2]),
        ("mini", "image", [ORIGINAL, 0, ORIGINAL, 1]),  # the first column is the reference's
        (None, "batch", [1] * 4),  # mean errors 0.6, 0.55, 0.575
        ("mini", "batch", [0] * 4),
    ],
)
def test_the_lowest_error_chooses_the_router(small_backbone, make_stream, reference, decision, expected):
    stream = make_stream()
    settings = replace(SEVERAL, reference_images=reference, domain_decision=decision, domain_threshold=0.7)
    method = build(stream, small_backbone, settings)
    errors = [[0.1, 0.5, 0.5], [0.6, 0.2, 0.6], [0.9, 0.8, 0.9], [0.8, 0.7, 0.3]]
    method.domains.autoencoders.errors = FixedErrors(errors).errors
    method.vectors_of_router = torch.zeros(2 if reference else 3, 4, small_backbone.embedding_width)
    assert method.routers_of(stream.tasks[0].train.pixels()[:4]).tolist() == expected
    assert (method.test_batches is None) == (decision == "image")


def test_every_image_is_scored_with_the_towers_and_texts_of_its_router(small_backbone, make_stream):
    stream = make_stream()
    method = teach(build(stream, small_backbone, SEVERAL), *stream.tasks)
    clip, pixels = small_backbone.clip, stream.tasks[0].train.pixels()[:3]
    method.routers_of = lambda batch: torch.tensor([1, ORIGINAL, 0])
    found = method.logits(pixels, range(4))
    text = small_backbone.classifier(stream.scenario.prompts_of(range(4)))
    zero_shot = F.normalize(small_backbone.encode_images(pixels[1:2]), dim=-1) @ text.T
    torch.testing.assert_close(found[1:2], small_backbone.logit_scale * zero_shot)
    with torch.no_grad():
        for row, router in ((0, 1), (2, 0)):
            unit = F.normalize(method.towers.image_features(clip, pixels[row : row + 1], router), dim=-1)
            expected = small_backbone.logit_scale * unit @ method.vectors_of_router[router].T
            torch.testing.assert_close(found[row : row + 1], expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(method.vectors_of_router[0], method.vectors_of_router[1], atol=1e-4)


def test_class_vectors_of_old_routers_follow_the_experts(small_backbone, make_stream):
    stream = make_stream()
    method = teach(build(stream, small_backbone, replace(SEVERAL, experts=2, freeze_used=0)), stream.tasks[0])
    before = method.vectors_of_router[0].clone()
    teach(method, stream.tasks[1])
    assert method.vectors_of_router.shape == (2, 4, small_backbone.embedding_width)
    assert not torch.equal(method.vectors_of_router[0], before)


def test_reference_images_are_asked_for_and_learned_with_the_first_task(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, replace(SEVERAL, reference_images="mini"))
    assert method.reference_names == ReferenceNames("mini", None)
    assert (
        build(stream, small_backbone, SEVERAL).reference_names is None and build(stream, small_backbone).reference_names is None
    )
    method.use_reference(Reference(stream.tasks[1].train, ()))
    untrained = {name: value.clone() for name, value in method.domains.autoencoders.domains[0].state_dict().items()}
    teach(method, stream.tasks[0])
    trained = {name: value.clone() for name, value in method.domains.autoencoders.domains[0].state_dict().items()}
    assert all(not torch.equal(trained[name], untrained[name]) for name in trained)
    teach(method, stream.tasks[1])
    assert all(torch.equal(value, trained[name]) for name, value in method.domains.autoencoders.domains[0].state_dict().items())
    assert len(method.domains.autoencoders) == 3


@pytest.mark.parametrize("settings", [QUICK, SEVERAL])
def test_a_resumed_run_ends_with_the_same_numbers(small_backbone, make_stream, settings):
    stream = make_stream(sizes=(2, 2, 2))
    whole = teach(build(stream, small_backbone, settings), stream.tasks[0])
    resumed = build(stream, small_backbone, settings)
    resumed.grow(stream.tasks[0])
    resumed.load_state_dict(whole.state_dict())
    pixels = stream.tasks[1].train.pixels()
    for task in stream.tasks[1:]:
        teach(whole, task), teach(resumed, task)
        assert torch.equal(resumed.logits(pixels, range(6)), whole.logits(pixels, range(6)))


# -- AlexNet ----------------------------------------------------------------------------------------------------


def test_alexnet_is_read_from_a_file_and_cut_after_its_fifth_convolution(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = alexnet().eval()
    convolutions = {name: value for name, value in network.state_dict().items() if name.startswith("features.")}
    torch.save(convolutions, tmp_path / "alexnet.pth")
    features = AlexNetFeatures(str(tmp_path / "alexnet.pth"), torch.device("cpu"))
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    convolved = [layer for layer in network.features if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolved) == 5
    x = pixels
    for index, convolution in enumerate(convolved):
        x = convolution(x)
        x = x if index == 4 else F.relu(x)
        x = F.max_pool2d(x, 3, 2) if index in (0, 1) else x
    assert features.width(224, torch.device("cpu")) == 43264
    torch.testing.assert_close(features(pixels), x.flatten(1), rtol=1e-4, atol=1e-5)
    with pytest.raises(BenchError, match="domain_features=clip"):
        features.width(16, torch.device("cpu"))


@pytest.mark.parametrize("content", [None, {"other": torch.zeros(1)}, {"features.0.weight": torch.zeros(2)}])
def test_a_file_without_alexnets_weights_is_refused(tmp_path, content):
    if content is not None:
        torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(BenchError, match="alexnet_weights="):
        AlexNetFeatures(str(tmp_path / "weights.pth"), torch.device("cpu"))


def test_domains_can_be_told_apart_by_alexnet(small_backbone, make_stream, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(alexnet().state_dict(), tmp_path / "alexnet.pth")
    stream = make_stream()
    settings = replace(SEVERAL, domain_features="alexnet", alexnet_weights=str(tmp_path / "alexnet.pth"))
    method = teach(build(stream, small_backbone, settings), *stream.tasks)
    assert method.domains.autoencoders.sizes[0] == 256  # one place is left of 32 pixels
    assert not [name for name in method.state_dict() if "alexnet" in name]
    assert bool(torch.isfinite(method.logits(stream.tasks[0].train.pixels(), range(4))).all())


@pytest.mark.parametrize(
    "options",
    [{"chosen": 3}, {"freeze_used": 3}, {"experts": 0}, {"domain_selection": True}, {"routers": "per_task"}, {"crop_scale": 0.0}],
)
def test_settings_that_contradict_each_other_are_refused(options):
    with pytest.raises(BenchError, match=next(iter(options))):
        MoEAdaptersSettings(**options)
