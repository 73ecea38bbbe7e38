"""CLAP on MaPLe's and AttriCLIP's prompts: losses and scores against slow transcriptions, exemplars, resume."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.clap.clap_attriclip import ClapAttriCLIP, ClapAttriCLIPSettings
from methods.clap.clap_maple import ClapMaPLe, ClapMaPLeSettings
from tests.methods.clap import literal_clap as literal
from tests.methods.clap.test_clap import disturbed, hand_made, teach

COMMON = dict(epochs=1, batch_size=4, train_samples=2, test_samples=3, attention_width=16, attention_heads=2, mirrored_view=False)
OWN = {ClapMaPLe: dict(prompt_depth=2), ClapAttriCLIP: dict(bank_size=4, prompt_length=2, chosen=2)}
SETTINGS = {ClapMaPLe: ClapMaPLeSettings, ClapAttriCLIP: ClapAttriCLIPSettings}


def build(stream, backbone, kind, budget=None, **settings):
    values = COMMON | OWN[kind] | settings
    return kind(SETTINGS[kind](**values), backbone, replace(stream.scenario, **(budget or {})), Draws("test", "clap", 0))


def batch_of(method, stream, count=2):
    parts = [task.train.inputs(method.inputs, torch.arange(count)) for task in stream.tasks]
    return torch.cat(parts)


def test_defaults_are_those_of_the_variants():
    maple, attriclip = ClapMaPLeSettings(), ClapAttriCLIPSettings()
    assert (maple.scale_rate_with_batch, maple.warm_up, maple.attention_heads, maple.adapter_layer_norm) == (False, 0.0, 0, True)
    assert (attriclip.warm_up, attriclip.attention_heads, attriclip.adapter_layer_norm) == (0.0, 8, False)
    assert attriclip.attention_in_consolidation and attriclip.label_space == maple.label_space == "seen"


# -- MaPLe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["", "balanced "])
def test_maple_losses_equal_their_transcription_and_reach_prompts_through_both_towers(small_backbone, make_stream, phase):
    stream = make_stream()
    method = disturbed(teach(build(stream, small_backbone, ClapMaPLe), stream.tasks))
    pixels, labels = batch_of(method, stream, 1), torch.tensor([0, 2])
    text = method.text_of(method.seen)
    terms = method.terms(text, pixels, labels, phase, 1, 3)
    x = F.normalize(method.deep.image_features(pixels), dim=-1)
    h = F.normalize(method.deep.text_features(method.deep.prompts(stream.scenario.class_names)), dim=-1)
    noise = method.draws.normal((2, 4, 24), "noise", phase, 1, 3)
    concerned = [0, 1] if phase else [1]
    expected = literal.losses(method, x, h, text.tasks, noise, labels, hand_made(small_backbone, stream), concerned)
    torch.testing.assert_close(torch.stack(terms[:3]), torch.stack(expected), rtol=2e-4, atol=1e-5)
    gradients = torch.autograd.grad(sum(terms), [method.deep.context, method.deep.projection.weight], retain_graph=True)
    by_hand = torch.autograd.grad(sum(expected), [method.deep.context, method.deep.projection.weight])
    for found, wanted in zip(gradients, by_hand):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


@pytest.mark.parametrize("released", [False, True])
def test_maple_scores_equal_their_transcription(small_backbone, make_stream, released):
    stream = make_stream()
    method = disturbed(teach(build(stream, small_backbone, ClapMaPLe, released=released), stream.tasks))
    with torch.no_grad():
        method.store_class_vectors()
        pixels = batch_of(method, stream)
        x = F.normalize(method.deep.image_features(pixels), dim=-1)
        h = method.deep.text_features(method.deep.prompts(stream.scenario.class_names))
        h = h if released else F.normalize(h, dim=-1)
        noise = torch.cat([method.draws.normal((3, 2, 24), "test noise", t) for t in range(2)], dim=1)
        expected = literal.sampled_logits(method, x, h, torch.tensor([0, 0, 1, 1]), noise).mean(dim=0)
    torch.testing.assert_close(method.logits(pixels, [3, 0]), expected[:, [3, 0]], rtol=1e-4, atol=1e-3)


def test_maple_as_released_trains_the_input_prompt_only(small_backbone, make_stream):
    stream = make_stream()
    for released, moved in ((True, {"context"}), (False, {"context", "deeper", "projection", "deeper_projections"})):
        method = build(stream, small_backbone, ClapMaPLe, released=released)
        before = {name: weights.detach().clone() for name, weights in method.deep.named_parameters()}
        teach(method, stream.tasks[:1])
        after = dict(method.deep.named_parameters())
        assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == moved


# -- AttriCLIP --------------------------------------------------------------------------------------------------


def literal_texts(method, x, names):
    """(b, K, d): for each image the prompts of its nearest keys, one after the other, in front of every name."""
    rows = []
    for image in x:
        similarity = [(image @ key).item() for key in method.bank.keys]
        chosen = sorted(range(len(similarity)), key=lambda i: -similarity[i])[: method.settings.chosen]
        context = torch.cat([method.bank.prompts[i] for i in chosen])
        texts = method.bank.prompts_for(method.backbone, names).features(context)
        rows.append(texts / texts.norm(dim=-1, keepdim=True))
    return torch.stack(rows)


@pytest.mark.parametrize("phase", ["", "balanced "])
def test_attriclip_losses_equal_their_transcription(small_backbone, make_stream, phase):
    stream = make_stream(sizes=(2, 1))
    method = disturbed(teach(build(stream, small_backbone, ClapAttriCLIP), stream.tasks))
    features, labels = batch_of(method, stream), torch.tensor([0, 1, 2, 2])
    text = method.text_of(method.seen)
    terms = method.terms(text, features, labels, phase, 1, 0)
    x = features / features.norm(dim=-1, keepdim=True)
    own = literal_texts(method, x, stream.scenario.class_names)
    noise = method.draws.normal((2, 3, 24), "noise", phase, 1, 0)
    prompts = hand_made(small_backbone, stream)
    concerned = [0, 1] if phase else [1]
    expected = literal.losses(method, x, own.mean(dim=0), text.tasks, noise, labels, prompts, concerned, own=own)
    torch.testing.assert_close(torch.stack(terms[:3]), torch.stack(expected), rtol=2e-4, atol=1e-5)

    keys = method.bank.keys / method.bank.keys.norm(dim=-1, keepdim=True)
    nearest = [sorted(range(4), key=lambda i, image=image: -(image @ method.bank.keys[i]).item())[:2] for image in x]
    key_loss = 1 - sum(image @ keys[i] for image, chosen in zip(x, nearest) for i in chosen) / (len(x) * 2)
    torch.testing.assert_close(terms.penalty, 0.7 * key_loss + 0.3 * method.bank.likeness(small_backbone))


def test_attriclip_without_its_two_flags_has_no_penalty(small_backbone, make_stream):
    stream = make_stream()
    method = teach(build(stream, small_backbone, ClapAttriCLIP, key_weight=0.0, prompt_weight=0.0), stream.tasks[:1])
    features, labels = batch_of(method, stream)[:2], torch.tensor([0, 0])
    assert method.terms(method.text_of(method.seen), features, labels, "", 0, 0).penalty == 0.0


def test_attriclip_scores_equal_their_transcription(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 1, 2))
    method = disturbed(teach(build(stream, small_backbone, ClapAttriCLIP), stream.tasks[:2]))
    method.store_class_vectors()
    features, tasks = batch_of(method, stream), torch.tensor([0, 0, 1, 2, 2])
    x = features / features.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        own = literal_texts(method, x, stream.scenario.class_names)
        h = own.mean(dim=0)
        u = h + literal.attention(method.head.attention.layer, h, x, tasks)
        noise = torch.cat([method.draws.normal((3, n, 24), "test noise", t) for t, n in enumerate((2, 1))], dim=1)
        expected = torch.zeros(len(x), 5)
        for b in range(len(x)):
            for k in range(5):
                weight = u[k] + own[b, k]
                if k < 3:
                    mu, sigma = literal.posterior(method, u[k], int(tasks[k]))
                    weight = weight + mu + sigma * noise[:, k].mean(dim=0)
                expected[b, k] = small_backbone.logit_scale * (x[b] @ weight)
    torch.testing.assert_close(method.logits(features, [4, 1, 2]), expected[:, [4, 1, 2]], rtol=1e-4, atol=1e-3)


def test_attriclip_trains_keys_and_prompts_and_its_attention_in_both_phases(small_backbone, make_stream):
    stream = make_stream()
    method = teach(build(stream, small_backbone, ClapAttriCLIP, budget={"exemplars_per_class": 2}), stream.tasks[:1])
    moments, fit = [], method.fit

    def watched(*arguments, **named):
        before = {name: weights.detach().clone() for name, weights in method.named_parameters()}
        fit(*arguments, **named)
        moments.append({name for name, weights in method.named_parameters() if not torch.equal(weights, before[name])})

    method.fit = watched
    teach(method, stream.tasks[1:])
    for moved in moments:
        assert {"bank.keys", "bank.prompts", "head.attention.layer.linear2.weight"} <= moved


def test_attriclip_forgets_texts_of_an_earlier_bank(small_backbone, make_stream):
    stream = make_stream()
    method = teach(build(stream, small_backbone, ClapAttriCLIP, learning_rate=0.5), stream.tasks[:1])
    features = batch_of(method, stream)
    method.logits(features, [0, 3])
    teach(method, stream.tasks[1:])
    again = build(stream, small_backbone, ClapAttriCLIP, learning_rate=0.5)
    for task in stream.tasks:
        again.grow(task)
    again.load_state_dict(method.state_dict())
    assert torch.equal(method.logits(features, [0, 3]), again.eval().logits(features, [0, 3]))


# -- both -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("rule", ["first", "random", "entropy"])
def test_resume_keeps_scores_and_exemplars(small_backbone, make_stream, kind, rule):
    stream = make_stream()
    given = dict(exemplar_rule=rule, budget={"exemplars_per_class": 2}, mirrored_view=True)
    whole = teach(build(stream, small_backbone, kind, **given), stream.tasks[:1])
    state = {name: value.clone() for name, value in whole.state_dict().items()}
    teach(whole, stream.tasks[1:])
    resumed = build(stream, small_backbone, kind, **given)
    resumed.grow(stream.tasks[0])
    resumed.load_state_dict(state)
    teach(resumed, stream.tasks[1:])
    batch = batch_of(whole, stream)
    assert torch.equal(resumed.logits(batch, range(4)), whole.logits(batch, range(4)))
    assert torch.equal(resumed.memory.images, whole.memory.images) and len(whole.memory) == 8
    assert whole.exemplar_bytes() == 8 * (32 * 32 * 3 if kind is ClapMaPLe else 2 * 24 * 4)


@pytest.mark.parametrize("kind", SETTINGS)
def test_before_learning_it_is_zero_shot(small_backbone, make_stream, kind):
    stream = make_stream()
    method = build(stream, small_backbone, kind)
    batch = batch_of(method, stream)
    unit = F.normalize(small_backbone.encode_images(batch) if kind is ClapMaPLe else batch, dim=-1)
    expected = small_backbone.logit_scale * unit @ small_backbone.classifier(stream.scenario.prompts_of([3, 0])).T
    torch.testing.assert_close(method.logits(batch, [3, 0]), expected)


def test_a_choice_that_the_bank_cannot_give_is_refused():
    with pytest.raises(BenchError):
        ClapAttriCLIPSettings(chosen=11)
    with pytest.raises(BenchError):
        ClapAttriCLIPSettings(prompt_length=0)
