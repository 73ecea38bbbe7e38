import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.cgil.alignment import HAND_MADE
from methods.cgil.cgil import CGIL, CGILSettings
from methods.cgil.diffusion import DiffusionModels
from methods.cgil.vae import VAE, VAEs, warm_restart_rate
from methods.shared.generators import Gaussians, Mixtures, k_means
from methods.zero_shot import ZeroShot

DRAWS = Draws("test", "cgil", 0)
QUICK = CGILSettings(
    alignment_lr=1e-3, alignment_epochs=1, samples_per_class=32, vae_epochs=3, vae_hidden=16, vae_latent=8, mog_components=2,
    diffusion_iterations=5, diffusion_width=16, diffusion_layers=2, diffusion_levels=8,
)  # fmt: skip


def accept(loss, what):
    """Any loss."""


@pytest.fixture
def stream(tiny):
    """Two tasks: three classes, then two."""
    labels = torch.where(tiny.labels < 5, tiny.labels, -1)
    return tiny.stream(tiny.class_names[:5], [3, 2], labels, templates=[HAND_MADE])


def build(tiny, stream, method=CGIL, **settings):
    return method(dataclasses.replace(QUICK, **settings), tiny.backbone, stream.scenario, DRAWS)


def test_features(stream):
    return torch.cat([task.test.features() for task in stream.tasks])


test_features.__test__ = False


# -- the VAEs ---------------------------------------------------------------------------------------------------

SIZES = [5, 1, 9, 4, 6]  # with batches of 4, last batches hold 1 (left out), 1 (never trained), 1, 4 and 2 images


def small_vaes(epochs=12):
    return VAEs(d=6, hidden=7, latent=3, epochs=epochs, lr=1e-2, batch=4)


def clouds(sizes, d=6):
    """Features (n, d) of one class for each size."""
    return [3 + c + torch.randn(n, d, generator=torch.Generator().manual_seed(c)) for c, n in enumerate(sizes)]


def test_vaes_of_unequal_classes_trained_together_equal_each_trained_alone():
    together = small_vaes()
    together.fit(range(len(SIZES)), clouds(SIZES), DRAWS, accept)
    for c, features in enumerate(clouds(SIZES)):
        alone = small_vaes()
        alone.fit([c], [features], DRAWS, accept)
        torch.testing.assert_close(together.decoders[c], alone.decoders[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.statistics[c], alone.statistics[0])


@pytest.mark.parametrize("c", range(len(SIZES)))
def test_a_batched_vae_equals_the_same_network_trained_by_torch(c):
    vaes, features = small_vaes(), clouds(SIZES)
    vaes.fit(range(len(SIZES)), features, DRAWS, accept)

    network = vaes.new_network(c, DRAWS)
    optimizer = torch.optim.Adam(network.parameters(), lr=vaes.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=max(1, vaes.epochs // 10), T_mult=2)
    x = (features[c] - features[c].mean(dim=0)) / features[c].std(dim=0, correction=min(1, SIZES[c] - 1))
    for epoch in range(vaes.epochs):
        order = DRAWS.permutation(len(x), "vae order", c, epoch)
        noise = DRAWS.normal((len(x), 3), "vae noise", c, epoch)
        for rows, eps in zip(order.split(4), noise.split(4)):
            if len(rows) == 1:
                continue
            mu, s = network.encoder(x[rows]).chunk(2, dim=-1)
            reconstruction = network.decoder(mu + eps * s.exp())
            rec = -torch.distributions.Normal(reconstruction, 1.0).log_prob(x[rows]).sum()
            kl = 0.5 * (s.exp() + mu**2 - 1 - s).sum()
            optimizer.zero_grad()
            ((rec + kl) / len(rows)).backward()
            optimizer.step()
        scheduler.step()
    expected = torch.nn.utils.parameters_to_vector(network.decoder.parameters())
    torch.testing.assert_close(vaes.decoders[c], expected, rtol=1e-3, atol=1e-4)


def test_warm_restart_rate_is_torch_s():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=5, T_mult=2)
    for epoch in range(50):
        assert warm_restart_rate(epoch, 0.3, first_cycle=5) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


# -- the diffusion models ---------------------------------------------------------------------------------------


def small_diffusion(iterations=12):
    return DiffusionModels(d=6, width=8, hidden=3, levels=5, iterations=iterations, lr=1e-2, batch=4)


def test_diffusion_models_of_unequal_classes_trained_together_equal_each_trained_alone():
    together = small_diffusion()
    together.fit(range(len(SIZES)), clouds(SIZES), DRAWS, accept)
    for c, features in enumerate(clouds(SIZES)):
        alone = small_diffusion()
        alone.fit([c], [features], DRAWS, accept)
        torch.testing.assert_close(together.networks[c], alone.networks[0], rtol=1e-4, atol=1e-5)


def literal_network(models, c):
    """(network, a function of one noisy embedding (6,) and its level) of a class, written out."""
    network = models.new_network(c, DRAWS)

    def denoise(x, level):
        angles = [level * math.exp(-math.log(5) / 3 * k) for k in range(4)]
        position = torch.tensor([math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles])
        shift = network.time[1](F.silu(network.time[0](position)))
        h = F.silu(network.inward(x))
        for layer in network.hidden:
            h = F.silu(layer(h) + shift)
        return network.outward(h)

    return network, denoise


def mixture_of(level):
    """a_t and b_t of five levels."""
    return abs(math.cos(math.pi * level / 10)), math.sin(math.pi * level / 10)


@pytest.mark.parametrize("c", range(len(SIZES)))
def test_a_batched_diffusion_model_equals_the_same_network_trained_by_torch(c):
    models, features = small_diffusion(), clouds(SIZES)
    models.fit(range(len(SIZES)), features, DRAWS, accept)

    network, denoise = literal_network(models, c)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=1e-2)
    x = (features[c] - features[c].mean(dim=0)) / features[c].std(dim=0, correction=min(1, SIZES[c] - 1)).clamp_min(1e-6)
    steps = epoch = 0
    while steps < 12:
        order = DRAWS.permutation(len(x), "diffusion order", c, epoch)
        levels = DRAWS.integers(5, (len(x),), "diffusion level", c, epoch) + 1
        factors = DRAWS.normal((2, len(x), 6), "diffusion noise", c, epoch)
        for rows, at in zip(order.split(4), torch.arange(len(x)).split(4)):
            if steps == 12:
                break
            losses = []
            for row, k in zip(rows, at):
                signal, noise = mixture_of(int(levels[k]))
                error = denoise(signal * x[row] + noise * factors[0, k] * factors[1, k], int(levels[k])) - x[row]
                weight = max(1.0, math.log(signal / noise)) if signal > 1e-6 else 1.0
                losses.append(weight * error.square().mean())
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
            steps += 1
        epoch += 1
    expected = torch.nn.utils.parameters_to_vector(network.parameters())
    torch.testing.assert_close(models.networks[c], expected, rtol=1e-3, atol=1e-4)


def test_a_diffusion_sample_goes_down_the_levels_with_new_noise_at_each():
    models = small_diffusion(iterations=0)
    features = clouds([5, 9])
    models.fit([0, 1], features, DRAWS, accept)
    samples = models.sample(3, DRAWS, "replay", 7)
    for c, own in enumerate(features):
        _, denoise = literal_network(models, c)
        for k in range(3):
            x = DRAWS.normal((2, 3, 6), "replay", 7)[c, k]
            for level in (5, 4, 3, 2, 1):
                x = denoise(x, level)
                if level > 1:
                    signal, noise = mixture_of(level - 1)
                    x = signal * x + noise * DRAWS.normal((2, 3, 6), "replay", 7, "noise", level - 1)[c, k]
            expected = x * own.std(dim=0) + own.mean(dim=0)
            torch.testing.assert_close(samples[c, k], expected.detach(), rtol=1e-4, atol=1e-4)


def test_half_of_the_loss_weights_are_one_and_the_cleanest_level_counts_most():
    models = DiffusionModels(d=2, width=8, hidden=1, levels=32, iterations=0, lr=1e-3, batch=4)
    expected = [max(1.0, -math.log(math.tan(math.pi * level / 64))) for level in range(1, 32)] + [1.0]
    torch.testing.assert_close(models.loss_weights, torch.tensor(expected), rtol=1e-4, atol=1e-5)


# -- every generator --------------------------------------------------------------------------------------------

GENERATORS = {
    "vae": lambda d: VAEs(d, hidden=32, latent=8, epochs=60, lr=5e-3, batch=64),
    "diffusion": lambda d: DiffusionModels(d, width=32, hidden=2, levels=8, iterations=600, lr=1e-2, batch=64),
    "gauss": Gaussians,
    "mog": lambda d: Mixtures(d, components=2, iterations=100),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_samples_have_the_mean_and_the_spread_of_their_class(kind):
    generator = GENERATORS[kind](4)
    centre, spread = torch.tensor([[0.0, 5.0, -3.0, 1.0], [2.0, 2.0, 2.0, 2.0]]), torch.tensor([0.5, 1.0, 2.0, 4.0])
    features = [c + spread * DRAWS.normal((400, 4), "features", i) for i, c in enumerate(centre)]
    generator.fit([0], features[:1], DRAWS, accept)
    generator.fit([1], features[1:], DRAWS, accept)
    samples = generator.sample(4000, DRAWS, "samples")
    assert samples.shape == (2, 4000, 4)
    for sample, x in zip(samples, features):
        # a diffusion model walks down from another noise than it was trained on, so its means wander
        allowed = {"diffusion": 0.4}.get(kind, 0.2)
        assert ((sample.mean(dim=0) - x.mean(dim=0)).abs() < allowed * spread).all()
        shrinkage = sample.std(dim=0) / x.std(dim=0)
        # a VAE keeps the unit noise of its likelihood to itself, so its means spread less than the data
        low, high = {"vae": (0.05, 1.3), "diffusion": (0.6, 1.4), "gauss": (0.9, 1.1), "mog": (0.8, 1.3)}[kind]
        assert ((low < shrinkage) & (shrinkage < high)).all(), shrinkage


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_constant_dimension_and_a_class_of_one_image_are_reproduced_without_nan(kind):
    features = clouds([7, 1], d=4)
    features[0][:, 2] = 1.5
    generator = GENERATORS[kind](4)
    generator.fit([0, 1], features, DRAWS, accept)
    samples = generator.sample(50, DRAWS, "samples")
    assert torch.isfinite(samples).all()
    torch.testing.assert_close(samples[0, :, 2], torch.full((50,), 1.5), atol=1e-2, rtol=0)
    torch.testing.assert_close(samples[1], features[1].expand(50, 4), atol=5e-2, rtol=0)


def test_k_means_finds_separated_groups():
    groups = [10.0 * c + 0.1 * DRAWS.normal((20, 3), "group", c) for c in range(3)]
    centres = k_means(torch.cat(groups), 3, DRAWS, 0)
    expected = torch.stack([group.mean(dim=0) for group in groups])
    torch.testing.assert_close(centres[centres[:, 0].argsort()], expected, atol=1e-4, rtol=0)


# -- the method -------------------------------------------------------------------------------------------------


def test_prompts_cut_at_the_longest_equal_prompts_of_77_tokens(tiny, stream):
    method = build(tiny, stream)
    prompts, clip = method.prompts.prompts, tiny.backbone.clip
    assert prompts.embeddings.shape[1] < prompts.tokens.shape[1]
    full = clip.token_embedding(prompts.tokens)  # (n, 77, w)
    full[:, 1:2] = method.prompts.context
    full[:, 2] = method.prompts.generator(method.prompts.hand_made)
    expected = F.normalize(tiny.backbone.encode_embedded(full, prompts.end), dim=-1)
    torch.testing.assert_close(method.prompts.keys(5), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", ["unit", "raw"])
def test_before_the_first_task_it_is_zero_shot_clip(tiny, stream, scale):
    method, zero_shot = build(tiny, stream, unseen_scale=scale), build(tiny, stream, ZeroShot)
    x = test_features(stream)
    torch.testing.assert_close(method.logits(x, range(5)), zero_shot.logits(x, range(5)), rtol=0, atol=1e-4)


def test_unseen_classes_are_scored_as_by_zero_shot_clip(tiny, stream):
    method, zero_shot = build(tiny, stream), build(tiny, stream, ZeroShot)
    method.learn(stream.tasks[0].for_training())
    x = test_features(stream)
    torch.testing.assert_close(method.logits(x, [4, 3]), zero_shot.logits(x, [4, 3]), rtol=0, atol=1e-4)
    assert (method.logits(x, [0, 1, 2]) - zero_shot.logits(x, [0, 1, 2])).abs().max() > 1


def test_raw_unseen_scale_multiplies_by_the_length_of_the_text_feature(tiny, stream):
    unit, raw = build(tiny, stream), build(tiny, stream, unseen_scale="raw")
    for method in (unit, raw):
        method.learn(stream.tasks[0].for_training())
    x, length = test_features(stream), raw.prompts.hand_made.norm(dim=-1)
    torch.testing.assert_close(raw.logits(x, [3, 4]), unit.logits(x, [3, 4]) * length[3:], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(raw.logits(x, [0, 1, 2]), unit.logits(x, [0, 1, 2]))


@pytest.mark.parametrize("generator", GENERATORS)
def test_resumed_between_tasks_equals_uninterrupted(tiny, stream, generator):
    method = build(tiny, stream, generator=generator)
    method.learn(stream.tasks[0].for_training())
    resumed = build(tiny, stream, generator=generator)
    resumed.load_state_dict(method.state_dict())
    for each in (method, resumed):
        each.learn(stream.tasks[1].for_training())
    x = test_features(stream)
    assert torch.equal(method.logits(x, range(5)), resumed.logits(x, range(5)))


@pytest.mark.parametrize("context, placeholders", [("combo", 3), ("generated", 1), ("learned", 2), ("shared", 2)])
def test_context_forms(tiny, stream, context, placeholders):
    method = build(tiny, stream, context=context, n_context=2)
    assert method.prompts.prompts.context_length == placeholders
    before = method.prompts.keys(3).detach()
    method.learn(stream.tasks[0].for_training())
    assert (method.class_vectors[:3] - before).abs().max() > 1e-4


def test_a_shared_context_is_one_for_all_classes(tiny, stream):
    shared, own = build(tiny, stream, context="shared", n_context=2), build(tiny, stream, context="learned", n_context=2)
    assert shared.prompts.context.shape[0] == 1 and own.prompts.context.shape[0] == 5
    own.prompts.context.data.copy_(shared.prompts.context.data.expand(5, -1, -1))
    torch.testing.assert_close(shared.prompts.keys(4), own.prompts.keys(4))


@pytest.mark.parametrize("freeze", [False, True])
def test_frozen_past_prompts_keep_their_own_context_while_the_generator_moves_on(tiny, stream, freeze):
    method = build(tiny, stream, freeze_past=freeze)
    method.learn(stream.tasks[0].for_training())
    context = method.prompts.context.detach().clone()
    generator = method.prompts.generator[-1].bias.detach().clone()
    method.learn(stream.tasks[1].for_training())
    assert torch.equal(method.prompts.context[:3], context[:3]) == freeze
    assert not torch.equal(method.prompts.context[3:], context[3:])
    assert not torch.equal(method.prompts.generator[-1].bias, generator)


def test_no_gradient_goes_through_the_keys_of_frozen_classes(tiny, stream, monkeypatch):
    """One step from the same start: the generator moves as if the frozen keys were constants."""
    method = build(tiny, stream, alignment_epochs=1)
    n, u, labels = 5, F.normalize(test_features(stream)[:6], dim=-1), torch.tensor([0, 3, 4, 1, 3, 2])
    held = method.prompts.keys(n)[:3].detach()
    keys = torch.cat([held, method.prompts.keys(n)[3:]])
    F.cross_entropy(tiny.backbone.logit_scale * u @ keys.T, labels).backward()
    expected = [p.grad.clone() for p in method.prompts.parameters()]
    method.prompts.zero_grad()
    found = []
    step = torch.optim.AdamW.step

    def recorded(optimizer, *rest):
        found.extend(p.grad.clone() for p in method.prompts.parameters())
        return step(optimizer, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    method.prompts.align(n, lambda epoch: u, labels, ("test",), accept, frozen=3)
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-5)


def test_learning_does_not_touch_torch_s_global_state_or_the_backbone(tiny, stream):
    state = torch.random.get_rng_state()
    weights = {name: p.clone() for name, p in tiny.backbone.clip.named_parameters()}
    build(tiny, stream).learn(stream.tasks[0].for_training())
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(p, weights[name]) for name, p in tiny.backbone.clip.named_parameters())


def test_only_decoders_and_statistics_outlive_a_task(tiny, stream):
    method = build(tiny, stream)
    method.learn(stream.tasks[0].for_training())
    decoder = sum(p.numel() for p in VAE(128, QUICK.vae_hidden, QUICK.vae_latent).decoder.parameters())
    assert {name: tuple(b.shape) for name, b in method.replay.named_buffers()} == {
        "decoders": (3, decoder),
        "statistics": (3, 4, 128),
    }


def test_a_class_without_training_images_is_an_error(tiny):
    labels = torch.where(tiny.labels < 1, 0, -1)
    stream = tiny.stream(["red fox", "unicorn"], [2], labels, templates=[HAND_MADE])
    with pytest.raises(BenchError, match="'unicorn' has no training image"):
        build(tiny, stream).learn(stream.tasks[0].for_training())


@pytest.mark.parametrize("wrong", [{"diffusion_width": 3}, {"diffusion_levels": 1}, {"diffusion_layers": 0}])
def test_impossible_diffusion_models_are_refused(wrong):
    with pytest.raises(BenchError, match="a diffusion model needs"):
        CGILSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"generator": "gan"}, {"context": "both"}, {"unseen_scale": "long"}])
def test_unknown_options_are_named(wrong):
    with pytest.raises(BenchError, match=f"unknown {next(iter(wrong))}"):
        CGILSettings(**wrong)


def test_authors_settings_per_data_set():
    def recipe(protocol):
        s = CGIL.settings_for(protocol)
        return s.alignment_lr, s.alignment_epochs, s.vae_epochs

    assert recipe("imagenet-r-10x20") == recipe("cifar100-10x10") == (0.05, 60, 500)
    assert recipe("cars196-10x20") == (0.03, 60, 500)
    assert recipe("cub200-10x20") == (0.01, 60, 500)
    assert recipe("eurosat-5x2") == (0.03, 150, 500)
    assert recipe("isic-3x2") == (0.05, 150, 750)


def test_a_limited_run_draws_fewer_embeddings_in_proportion(tiny, stream):
    method = build(tiny, stream)
    method.scenario = dataclasses.replace(stream.scenario, train_fraction=0.25)
    drawn = []
    sample = method.replay.sample
    method.replay.sample = lambda count, *purpose: drawn.append(count) or sample(count, *purpose)
    method.learn(stream.tasks[0])
    assert set(drawn) == {32 // 4}
