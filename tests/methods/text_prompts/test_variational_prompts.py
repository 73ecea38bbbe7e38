"""Variational prompt tuning: loss and prediction against a transcription in loops."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.text_prompts.variational_prompts import VariationalPrompts, VariationalPromptsSettings

QUICK = VariationalPromptsSettings(epochs=1, batch_size=4, learning_rate=0.02, n_draws=3, kl_weight=0.5)
POSTERIORS = pytest.mark.parametrize("posterior", ["unconditional", "conditional"])


def build(stream, backbone, posterior="unconditional", seed=0, **settings) -> VariationalPrompts:
    chosen = replace(QUICK, posterior=posterior, **settings)
    return VariationalPrompts(chosen, backbone, stream.scenario, Draws("test", "vpt", seed))


def literal_log_p(method, f, noise, classes) -> tuple[torch.Tensor, torch.Tensor]:
    """One unit embedding (d,), one draw (w,): log-probabilities of some classes and the log of their normaliser."""
    mean, log_variance = (value[0] for value in method.posterior(f[None]))
    shift = mean + noise * torch.sqrt(torch.exp(log_variance))
    logits = []
    for c in classes:
        tokens = method.backbone.tokenize([f"a photo of a {method.scenario.class_names[c]}."])
        embeddings = method.backbone.embed_tokens(tokens).clone()
        embeddings[0, 1:5] = method.context + shift
        w = method.backbone.encode_embedded(embeddings, tokens.argmax(dim=-1))[0]
        logits.append(method.backbone.logit_scale * f @ (w / w.norm()))
    logits = torch.stack(logits)
    return logits.log_softmax(dim=0), logits.logsumexp(dim=0)


@POSTERIORS
def test_the_loss_is_the_mixture_s_likelihood_and_the_divergence(small_backbone, make_stream, posterior):
    stream = make_stream()
    method = build(stream, small_backbone, posterior)
    features, labels = stream.tasks[0].train.features()[:3], torch.tensor([1, 0, 3])
    unit = F.normalize(features, dim=-1)
    n = 1 if posterior == "unconditional" else 3
    noise = method.draws.normal((3, n, small_backbone.text_width), "posterior", "", 0, 7)
    likelihood, divergence = [], []
    for k, (f, label) in enumerate(zip(unit, labels)):
        log_p = torch.stack([literal_log_p(method, f, noise[draw, k % n], range(4))[0][label] for draw in range(3)])
        likelihood.append(torch.log(torch.exp(log_p).mean()))
        mean, log_variance = method.posterior(f[None])
        own = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
        divergence.append(torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).mean())
    expected = -torch.stack(likelihood).mean() + 0.5 * torch.stack(divergence).mean()
    found = method.loss(method.text_of(torch.arange(4)), features, labels, "", 0, 7)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@POSTERIORS
@pytest.mark.parametrize("prompts_at_once", [7, 2048])
@torch.no_grad()
def test_scores_of_seen_classes_are_the_mixture_s_probabilities(small_backbone, make_stream, posterior, prompts_at_once):
    stream = make_stream(sizes=(3, 1))
    method = build(stream, small_backbone, posterior, prompts_at_once=prompts_at_once)
    with torch.enable_grad():
        method.learn(stream.tasks[0])
    features = stream.tasks[0].train.features()[::4]
    noise = method.test_noise()
    for f, found in zip(F.normalize(features, dim=-1), method.logits(features, [2, 0, 3, 1])):
        log_p, log_z = zip(*(literal_log_p(method, f, noise[draw, 0], range(3)) for draw in range(3)))
        expected = torch.stack(log_p).exp().mean(dim=0).log() + torch.stack(log_z).exp().mean().log()
        torch.testing.assert_close(found[[1, 3, 0]], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[[1, 3, 0]].softmax(dim=0), torch.stack(log_p).exp().mean(dim=0), rtol=1e-3, atol=1e-5)


@POSTERIORS
@torch.no_grad()
def test_in_a_task_incremental_stream_a_task_s_classes_share_the_probability(small_backbone, make_stream, posterior):
    stream = make_stream("task-incremental")
    method = build(stream, small_backbone, posterior)
    with torch.enable_grad():
        method.learn(stream.tasks[0])
    features = stream.tasks[1].train.features()[:2]
    noise = method.test_noise()
    for f, found in zip(F.normalize(features, dim=-1), method.logits(features, [2, 3])):  # the second task, not yet learned
        p = torch.stack([literal_log_p(method, f, noise[draw, 0], [2, 3])[0].exp() for draw in range(3)]).mean(dim=0)
        torch.testing.assert_close(found.softmax(dim=0), p, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_with_one_draw_the_scores_are_cosines(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone, n_draws=1)
    with torch.enable_grad():
        method.learn(stream.tasks[0])
    features = stream.tasks[0].train.features()
    expected = small_backbone.logit_scale * F.normalize(features, dim=-1) @ method.drawn_vectors[0].T
    torch.testing.assert_close(method.logits(features, range(4)), expected, rtol=1e-4, atol=1e-4)


@POSTERIORS
def test_before_learning_it_is_zero_shot_clip(small_backbone, make_stream, posterior):
    stream = make_stream()
    features = stream.tasks[0].train.features()
    text = small_backbone.classifier(stream.scenario.prompts_of([2, 1]))
    expected = small_backbone.logit_scale * F.normalize(features, dim=-1) @ text.T
    torch.testing.assert_close(build(stream, small_backbone, posterior).logits(features, [2, 1]), expected)


def test_the_log_variance_starts_uniform_or_where_it_is_told_to(small_backbone, make_stream):
    stream = make_stream()
    method = build(stream, small_backbone)
    assert 0 <= method.log_variance.min().item() < 0.2 < 0.8 < method.log_variance.max().item() < 1
    assert not method.mean.detach().any()
    assert (build(stream, small_backbone, init_logvar=-8.0).log_variance == -8).all()
    unit = F.normalize(torch.randn(5, 24, generator=torch.Generator().manual_seed(0)), dim=-1)
    _, log_variance = build(stream, small_backbone, "conditional", init_logvar=-8.0).posterior(unit)
    assert (log_variance.detach() + 8).abs().max() < 1


@POSTERIORS
def test_resumed_it_predicts_the_same(small_backbone, make_stream, posterior):
    stream = make_stream()
    method, resumed = build(stream, small_backbone, posterior), build(stream, small_backbone, posterior)
    method.learn(stream.tasks[0])
    resumed.load_state_dict(method.state_dict())
    features = stream.tasks[0].train.features()
    assert torch.equal(method.logits(features, range(4)), resumed.logits(features, range(4)))
    other = build(stream, small_backbone, posterior, seed=1)
    other.learn(stream.tasks[0])
    assert not math.isclose(float(other.logits(features, [0])[0]), float(method.logits(features, [0])[0]), rel_tol=1e-5)


@pytest.mark.parametrize("name", ["n_draws", "context_length", "prompts_at_once"])
def test_settings_out_of_range_are_refused(name):
    with pytest.raises(BenchError, match=name):
        VariationalPromptsSettings(**{name: 0})
