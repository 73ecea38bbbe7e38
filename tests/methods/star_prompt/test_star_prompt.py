"""STAR-Prompt's equations against slow, literal transcriptions, and its two kinds of image tower."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer

from bench.clip.backbone import encode_tokens
from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.shared.batches import Batch
from methods.star_prompt.class_keys import ClassKeys, ClassKeySettings
from methods.star_prompt.semantic_residuals import SCORE_SCALE, SemanticResiduals
from methods.star_prompt.star_prompt import STARPrompt, STARPromptSettings, alignment_loss, rate
from methods.star_prompt.value_residual_towers import CLIPTower, TimmTower, open_timm

DRAWS = Draws("test", "star-prompt", 0)
QUICK = STARPromptSettings(
    **{"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "key_batch_size": 4, "key_alignment_epochs": 2},
    **{"alignment_epochs": 2, "samples_per_class": 8, "alignment_batch": 6},
    **{"mixture_components": 2, "key_mixture_iterations": 5, "mixture_iterations": 5},
)


def build(backbone, stream, seed=0, **settings):
    settings = dataclasses.replace(QUICK, **settings)
    return STARPrompt(settings, backbone, stream.scenario, Draws("test", "star-prompt", seed)).eval()


def learned(backbone, stream, tasks=None, **settings):
    method = build(backbone, stream, **settings)
    for task in stream.tasks[:tasks]:
        method.learn(task)
    return method


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


# -- the image towers -------------------------------------------------------------------------------------------


def literal_attention(h, qkv_weight, qkv_bias, heads, residual):
    """(n, D) of one image: a head and a token at a time, the residual (D,) added to the values of every token."""
    q, k, v = (h @ w.T + b for w, b in zip(qkv_weight.chunk(3), qkv_bias.chunk(3)))
    v = torch.stack([token + residual for token in v])
    d, mixed = h.shape[1] // heads, torch.zeros_like(h)
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        for token in range(len(h)):
            weights = torch.softmax(k[:, part] @ q[token, part] / d**0.5, dim=0)
            mixed[token, part] = weights @ v[:, part]
    return mixed


def test_a_block_of_clip_with_residuals_on_its_values(small_backbone):
    tower, x, residuals = CLIPTower(small_backbone), normal(2, 5, 32), normal(2, 32)
    block = tower.blocks[0]
    attention = block.attn
    for image in range(2):
        h = block.ln_1(x[image])
        mixed = literal_attention(h, attention.in_proj_weight, attention.in_proj_bias, attention.num_heads, residuals[image])
        after = x[image] + attention.out_proj(mixed)
        expected = after + block.mlp(block.ln_2(after))
        torch.testing.assert_close(tower.block(block, x, residuals)[image], expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def vit():
    """A random vision transformer of timm: three blocks with layer scale, 24 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VisionTransformer(img_size=24, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=0, init_values=0.5)
    model.pretrained_cfg = {"mean": (0.2, 0.5, 0.6), "std": (0.1, 0.3, 0.4)}
    return model


def test_a_block_of_timm_with_residuals_on_its_values(small_backbone, vit):
    tower, x, residuals = TimmTower("small", vit, small_backbone), normal(2, 5, 24), normal(2, 24)
    block = tower.blocks[1]
    for image in range(2):
        h = block.norm1(x[image])
        mixed = literal_attention(h, block.attn.qkv.weight, block.attn.qkv.bias, 3, residuals[image])
        after = x[image] + block.ls1.gamma * block.attn.proj(mixed)
        expected = after + block.ls2.gamma * block.mlp(block.norm2(after))
        torch.testing.assert_close(tower.block(block, x, residuals)[image], expected, rtol=1e-4, atol=1e-5)


def test_without_residuals_both_towers_are_what_they_were(small_backbone, vit, make_stream):
    pixels = make_stream().tasks[0].train.pixels()
    clip, timm = CLIPTower(small_backbone), TimmTower("small", vit, small_backbone)
    with torch.no_grad():
        found = clip.pooled(pixels, torch.zeros(2, len(pixels), 32))
        torch.testing.assert_close(found, small_backbone.pool_images(pixels), rtol=1e-4, atol=1e-5)
        found = timm.pooled(pixels, torch.zeros(3, len(pixels), 24))
        torch.testing.assert_close(found, vit(timm.convert(pixels)), rtol=1e-4, atol=1e-5)


def test_pixels_get_the_other_model_s_normalisation_and_size(small_backbone, vit):
    unit = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    clip_pixels = (unit - 0.5) / 0.25  # as the small backbone has them
    mean, std = (torch.tensor(vit.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    tower = TimmTower("small", vit, small_backbone)
    torch.testing.assert_close(tower.convert(clip_pixels), (unit - mean) / std, rtol=1e-4, atol=1e-5)
    grey = torch.full((1, 3, 32, 32), (0.3 - 0.5) / 0.25)
    torch.testing.assert_close(tower.convert(grey), ((0.3 - mean) / std).expand(1, 3, 24, 24), rtol=1e-4, atol=1e-4)


def test_other_transformers_are_refused(small_backbone, vit):
    pooled = VisionTransformer(img_size=24, patch_size=8, embed_dim=24, depth=1, num_heads=3, num_classes=0, global_pool="avg")
    with pytest.raises(BenchError, match="class token"):
        TimmTower("mean pooled", pooled, small_backbone)
    vit.blocks[1].attn.norm = torch.nn.LayerNorm(24)  # of what comes out of the heads: the residual would pass through it
    with pytest.raises(BenchError, match="plain vision transformer"):
        TimmTower("normed", vit, small_backbone)
    with pytest.raises(BenchError, match="no such model"):
        open_timm("vit_of_nobody", False, small_backbone, DRAWS)
    with pytest.raises(BenchError, match="name its weights"):
        open_timm("test_vit", True, small_backbone, DRAWS)


# -- semantic residuals -----------------------------------------------------------------------------------------

LAYERS, CLASSES, E, D = 2, 5, 6, 4


def residuals(confident=True, gradient="all"):
    return SemanticResiduals(LAYERS, CLASSES, E, D, confident, gradient, DRAWS)


def some_queries_and_keys(n=4):
    return 3 * normal(7, E), F.normalize(normal(n, E), dim=-1)


def literal_scores(part, query, keys, layer):
    scores = torch.zeros(len(query), len(keys))
    for b in range(len(query)):
        for c in range(len(keys)):
            modulated = query[b] * torch.softmax(part.modulations[layer, c], dim=0)
            scores[b, c] = SCORE_SCALE * torch.cosine_similarity(modulated, keys[c], dim=0)
    return scores


@pytest.mark.parametrize("confident", [True, False])
@pytest.mark.parametrize("gradient", ["all", "winner"])
def test_residuals_image_by_image(confident, gradient):
    part, (query, keys) = residuals(confident, gradient), some_queries_and_keys()
    found = part(query, keys, past=0)
    for layer in range(LAYERS):
        scores = literal_scores(part, query, keys, layer)
        for b in range(len(query)):
            winner = max(range(len(keys)), key=lambda c: scores[b, c].item())
            expected = (scores[b, winner] if confident else 1) * part.residuals[layer, winner]
            torch.testing.assert_close(found[layer, b], expected, rtol=1e-4, atol=1e-5)


def gradients(part, value):
    return torch.autograd.grad(value, [part.modulations, part.residuals])


def test_the_winner_s_gradient_is_the_derivative():
    part, (query, keys), weights = residuals(gradient="winner"), some_queries_and_keys(), normal(LAYERS, 7, D)
    found = gradients(part, (part(query, keys, past=0) * weights).sum())
    value = torch.zeros(())
    for layer in range(LAYERS):
        scores = literal_scores(part, query, keys, layer)
        winner = scores.argmax(dim=1)
        for b in range(len(query)):
            value = value + scores[b, winner[b]] * part.residuals[layer, winner[b]] @ weights[layer, b]
    for mine, expected in zip(found, gradients(part, value)):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


def test_the_released_gradient_does_not_know_of_the_zeros():
    part, (query, keys), weights = residuals(gradient="all"), some_queries_and_keys(), normal(LAYERS, 7, D)
    found = gradients(part, (part(query, keys, past=0) * weights).sum())
    value = torch.zeros(())
    for layer in range(LAYERS):
        scores = literal_scores(part, query, keys, layer)
        loser = torch.ones_like(scores, dtype=torch.bool).scatter(1, scores.argmax(dim=1, keepdim=True), False)
        with torch.no_grad():
            scores.masked_fill_(loser, 0.0)  # behind the back of autograd
        value = value + (scores @ part.residuals[layer, : len(keys)] * weights[layer]).sum()
    for mine, expected in zip(found, gradients(part, value)):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)
    assert (found[0][:, : len(keys)].abs().amax(dim=(0, 2)) > 0).all()  # also of classes that have won nowhere


def test_past_classes_can_win_but_do_not_move():
    part, (query, keys) = residuals(), some_queries_and_keys()
    torch.testing.assert_close(part(query, keys, past=2), part(query, keys, past=0))
    for gradient in gradients(part, part(query, keys, past=2).sum()):
        assert not gradient[:, :2].any() and gradient[:, 2:4].any() and not gradient[:, 4:].any()


def test_penalty_pair_by_pair():
    part, n, past = residuals(), 5, 2
    total = 0.0
    for layer in range(LAYERS):
        p = part.residuals[layer]
        lengths = [(p[c] @ p[c] - 1) ** 2 for c in range(past, n)]
        overlaps = [(p[c] @ p[o]) ** 2 for c in range(past, n) for o in range(past)]
        total = total + sum(lengths) / len(lengths) + sum(overlaps) / len(overlaps)
    torch.testing.assert_close(part.penalty(n, past), total / LAYERS)
    assert not gradients_of_penalty(part, n, past)[:, :past].any()
    assert part.penalty(n, 0).item() == 0


def gradients_of_penalty(part, n, past):
    return torch.autograd.grad(part.penalty(n, past), part.residuals)[0]


def test_modulations_start_orthogonal_and_residuals_as_a_third_of_orthogonal_rows():
    part = residuals()
    for rows in part.modulations:
        torch.testing.assert_close(rows @ rows.T, torch.eye(CLASSES), rtol=0, atol=1e-5)
    lengths = part.residuals.norm(dim=-1)
    assert (lengths < 1).all() and (lengths > 0).all()
    assert part.residuals.std().item() == pytest.approx((1 / (3 * D)) ** 0.5, rel=0.5)


# -- stage 1 ----------------------------------------------------------------------------------------------------


def class_keys(backbone, stream):
    return ClassKeys(backbone, stream.scenario, ClassKeySettings(key_orthogonality=7.0), DRAWS)


def literal_key(part, backbone, name, context):
    """The prompt at full length, with the embedding of X replaced."""
    tokens = backbone.tokenize([f"X {name}."])
    table = backbone.clip.token_embedding
    hook = table.register_forward_hook(lambda _, ids, rows: torch.cat([rows[:, :1], context.view(1, 1, -1), rows[:, 2:]], 1))
    try:
        return F.normalize(encode_tokens(backbone.clip, tokens)[0], dim=0)
    finally:
        hook.remove()


def test_loss_of_the_keys(small_backbone, make_stream):
    stream = make_stream()
    part, names = class_keys(small_backbone, stream), stream.scenario.class_names
    embeddings, labels = normal(5, 24), torch.tensor([2, 3, 3, 2, 3])
    keys = [literal_key(part, small_backbone, names[c], part.context[c, 0]) for c in range(4)]
    entropy = torch.zeros(())
    for u, y in zip(embeddings, labels):
        logits = torch.stack([small_backbone.logit_scale * torch.cosine_similarity(u, keys[c], dim=0) for c in (2, 3)])
        entropy = entropy - torch.log_softmax(logits, dim=0)[y - 2] / 5
    penalty = sum((part.context[new, 0] @ part.context[old, 0]) ** 2 for new in (2, 3) for old in (0, 1)) / 4
    expected = entropy + 7.0 * penalty
    found = part.loss(embeddings, labels, 2, 4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    mine = torch.autograd.grad(found, part.context)[0]
    wanted = torch.autograd.grad(expected, part.context)[0]
    torch.testing.assert_close(mine[2:], wanted[2:], rtol=1e-3, atol=1e-5)
    assert not mine[:2].any() and part.penalty(0, 2).item() == 0


def test_alignment_of_the_keys_among_all_classes(small_backbone, make_stream):
    stream = make_stream()
    part, names = class_keys(small_backbone, stream), stream.scenario.class_names
    part.keys[:2] = F.normalize(normal(2, 24), dim=-1)
    unit, labels = F.normalize(normal(5, 24), dim=-1), torch.tensor([0, 1, 2, 3, 3])
    keys = [part.keys[0], part.keys[1], *(literal_key(part, small_backbone, names[c], part.context[c, 0]) for c in (2, 3))]
    entropy = torch.zeros(())
    for u, y in zip(unit, labels):
        logits = torch.stack([small_backbone.logit_scale * (u @ key) for key in keys])
        entropy = entropy - torch.log_softmax(logits, dim=0)[y] / 5
    torch.testing.assert_close(part.alignment_loss(unit, labels, 2, 4), entropy, rtol=1e-4, atol=1e-5)


def test_one_step_of_each_stage_on_the_keys(small_backbone, make_stream):
    """SGD without momentum: the context minus rate times gradient, for new classes alone."""
    task = make_stream().tasks[1]
    part = class_keys(small_backbone, make_stream())
    start = part.context.detach().clone()
    embeddings, labels = normal(6, 24), torch.tensor([2, 3, 3, 2, 3, 2])
    gradient = torch.autograd.grad(part.loss(embeddings, labels, 2, 4), part.context)[0]
    part.learn(embeddings, labels, task.classes, 1, None, 1)
    torch.testing.assert_close(part.context.detach(), start - part.settings.key_learning_rate * gradient, rtol=1e-4, atol=1e-6)
    assert torch.equal(part.context[:2], start[:2])


# -- the whole method -------------------------------------------------------------------------------------------


def test_loss_of_stage_2_among_the_task_s_classes(small_backbone, make_stream):
    stream = make_stream()
    method = learned(small_backbone, stream, tasks=1)
    task = stream.tasks[1]
    method.learn_keys(task, 1, None)
    pixels, query, labels = task.train.pixels(), task.train.features(), task.train.labels
    found = method.loss(pixels, query, labels, task.classes)
    residuals = method.residuals(query, method.keys.keys[:4], 2)
    entropy = torch.zeros(())
    for b in range(len(pixels)):
        f = method.tower.pooled(pixels[b : b + 1], residuals[:, b : b + 1])[0]
        logits = torch.stack([method.head.weight[c] @ f + method.head.bias[c] for c in (2, 3)])
        entropy = entropy - torch.log_softmax(logits, dim=0)[labels[b] - 2] / len(pixels)
    expected = entropy + method.settings.orthogonality * method.residuals.penalty(4, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found.backward()
    assert not method.head.weight.grad[:2].any() and method.head.weight.grad[2:].any()


def test_what_earlier_classes_have_learned_stays(small_backbone, make_stream):
    stream = make_stream()
    method = learned(small_backbone, stream, tasks=1)
    names = ("keys.context", "keys.keys", "residuals.modulations", "residuals.residuals", "head.weight", "head.bias")
    before = {name: method.state_dict()[name].clone() for name in names}
    aligned = method.aligned_weight.clone()
    method.learn(stream.tasks[1])
    for name, old in before.items():
        new = method.state_dict()[name]
        past = (slice(None), slice(2)) if name.startswith("residuals.") else slice(2)
        coming = (slice(None), slice(2, 4)) if name.startswith("residuals.") else slice(2, 4)
        assert torch.equal(new[past], old[past]), name
        assert not torch.equal(new[coming], old[coming]), name
    assert not torch.equal(method.aligned_weight[:2], aligned[:2])


def test_the_head_is_aligned_as_a_copy_on_drawn_features(small_backbone, make_stream):
    stream = make_stream()
    method = learned(small_backbone, stream, alignment_rate=0.5)
    settings = method.settings
    weight, bias = method.head.weight.detach().clone(), method.head.bias.detach().clone()
    for epoch in range(settings.alignment_epochs + 5):
        drawn = method.feature_mixtures.sample(settings.samples_per_class, method.draws, "features", 1, epoch).float()
        pairs = [(f, c) for c in range(4) for f in drawn[c]]
        order = method.draws.permutation(len(pairs), "alignment order", 1, epoch).tolist()
        for start in range(0, len(order), settings.alignment_batch):
            weight.requires_grad_(), bias.requires_grad_()
            batch = [pairs[k] for k in order[start : start + settings.alignment_batch]]
            loss = torch.zeros(())
            for f, c in batch:
                z = weight @ f + bias
                loss = loss - torch.log_softmax(z / (0.1 * z.norm()), dim=0)[c] / len(batch)
            gradients = torch.autograd.grad(loss, [weight, bias])
            weight, bias = (p.detach() - 0.5 * g for p, g in zip((weight, bias), gradients))
    torch.testing.assert_close(method.aligned_weight, weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(method.aligned_bias, bias, rtol=1e-3, atol=1e-4)


def test_after_the_first_task_the_head_is_used_as_it_is(small_backbone, make_stream):
    method = learned(small_backbone, make_stream(), tasks=1)
    assert torch.equal(method.aligned_weight, method.head.weight) and torch.equal(method.aligned_bias, method.head.bias)


def test_alignment_loss_does_not_see_the_length_of_logits():
    logits, labels = normal(4, 3), torch.tensor([0, 1, 2, 1])
    expected = sum(-torch.log_softmax(10 * z / z.norm(), dim=0)[y] for z, y in zip(logits, labels)) / 4
    torch.testing.assert_close(alignment_loss(logits, labels), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alignment_loss(1000 * logits, labels), expected, rtol=1e-4, atol=1e-5)


def test_rates():
    assert [rate(e, 2.0, 5) for e in range(5)] == pytest.approx([2 * math.cos(0.495 * math.pi * e / 4) for e in range(5)])
    assert rate(0, 2.0, 1) == 2.0


def test_mixtures_are_fitted_in_double_precision_to_every_pass(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 1))
    method = learned(small_backbone, stream, mixture_passes=2)
    features, labels = method.features(stream.tasks[1])
    assert len(features) == len(labels) == 10 and not torch.allclose(features[:5], features[5:])
    for mixtures in (method.embedding_mixtures, method.feature_mixtures):
        assert mixtures.means.dtype == torch.float64 and mixtures.means.shape[:2] == (3, 2)


@pytest.mark.parametrize("views", [{"crop_scale": 1.0, "mirrored_view": False}, {"crop_scale": 0.5}])
def test_the_query_is_of_the_image_as_it_is_shown(small_backbone, make_stream, views):
    stream = make_stream()
    method, rows = build(small_backbone, stream, **views), torch.tensor([3, 0, 7])
    split = stream.tasks[0].train
    pixels = method.pixels(split, Batch(0, 0, rows), "test")
    query = method.query(split, rows, pixels)
    torch.testing.assert_close(query, small_backbone.encode_images(pixels), rtol=1e-4, atol=1e-5)
    assert torch.equal(pixels, split.pixels(rows)) == (method.settings.crop_scale == 1)


def test_training_teaches_and_unlearned_classes_are_refused(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2))
    method = build(small_backbone, stream, epochs=30, crop_scale=1.0, mirrored_view=False)
    pixels = stream.tasks[0].train.pixels()
    with pytest.raises(ValueError, match="red"):
        method.logits(pixels, [0])
    method.learn(stream.tasks[0])
    with pytest.raises(ValueError, match="blue"):
        method.logits(pixels, [0, 2])
    accuracy = (method.logits(pixels, [0, 1]).argmax(dim=-1) == stream.tasks[0].train.labels).float().mean()
    assert accuracy.item() > 0.8
    torch.testing.assert_close(method.logits(pixels, [1, 0]), method.logits(pixels, [0, 1])[:, [1, 0]])


def test_resumed_after_a_task_it_ends_with_the_same_numbers(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 1, 1))
    whole, other = learned(small_backbone, stream), build(small_backbone, stream, seed=1)
    for done in (1, 2):
        resumed = build(small_backbone, stream)
        resumed.load_state_dict(learned(small_backbone, stream, tasks=done).state_dict())
        for task in stream.tasks[done:]:
            resumed.learn(task)
        assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))
    assert not torch.equal(build(small_backbone, stream).keys.context, other.keys.context)


def test_the_protocol_s_budget_is_shared_among_the_stages(small_backbone, make_stream, monkeypatch):
    stream = make_stream()
    limited = dataclasses.replace(stream.scenario, images_per_task=20)  # of 40: ten images, two epochs, two stages
    seen = []
    original = STARPrompt.loss
    monkeypatch.setattr(STARPrompt, "loss", lambda self, *parts: (seen.append(len(parts[0])), original(self, *parts))[1])
    monkeypatch.setattr(ClassKeys, "loss", lambda self, u, *parts: (seen.append(-len(u)), (self.context * 0).sum())[1])
    STARPrompt(QUICK, small_backbone, limited, DRAWS).learn(stream.tasks[0])
    assert seen == [-4, -4, -2, 4, 4, 2]


def test_a_timm_tower_by_name(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 1))
    method = learned(small_backbone, stream, vit="test_vit", vit_pretrained=False, epochs=1)
    pixels = stream.tasks[0].train.pixels()
    assert method.logits(pixels, range(3)).shape == (len(pixels), 3)
    assert len(method.residuals.residuals) == len(method.tower.blocks) == 6
    assert not any("tower" in name for name in method.state_dict())
    again = learned(small_backbone, stream, vit="test_vit", vit_pretrained=False, epochs=1)
    assert torch.equal(method.logits(pixels, range(3)), again.logits(pixels, range(3)))
    before = small_backbone.image_passes
    method.logits(pixels, [0])
    assert small_backbone.image_passes - before == 2 * len(pixels)  # CLIP for the query, then the tower


def test_one_class_and_a_class_without_images(small_backbone, make_stream):
    stream = make_stream(sizes=(1, 1), per_class=1)
    method = learned(small_backbone, stream)
    assert method.logits(stream.tasks[0].train.pixels(), [0, 1]).isfinite().all()
    stream = make_stream()
    with pytest.raises(BenchError, match="green"):
        task = stream.tasks[0]
        build(small_backbone, stream).learn(dataclasses.replace(task, train=task.train.chosen(torch.tensor([0, 1]))))


def test_settings_that_cannot_work():
    with pytest.raises(BenchError, match="modulation_gradient"):
        STARPromptSettings(modulation_gradient="none")
    with pytest.raises(BenchError, match="epochs"):
        STARPromptSettings(epochs=0)
    with pytest.raises(BenchError, match="1 or more"):
        STARPromptSettings(samples_per_class=0)
