"""Prefix attention, prompt selection and orthogonal starts against slow, literal transcriptions."""

import pytest
import torch

from bench.clip.image_tower import blocks, image_tokens
from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.visual_prompts.coda_prompt import CODAPrompt, orthogonal_rows, squared_off_identity
from methods.visual_prompts.dualprompt import DualPrompt
from methods.visual_prompts.l2p import L2P
from methods.visual_prompts.prefix_attention import block_with_prefix

SMALL = {
    L2P: {"pool_size": 4, "length": 2, "top_k": 2},
    DualPrompt: {"general_layers": (0,), "expert_layers": (1,), "general_length": 2, "expert_length": 3},
    CODAPrompt: {"layers": (0, 1), "components": 6, "length": 4},
}


def build(method_class, backbone, stream, **settings):
    settings = method_class.Settings(**{"epochs": 2, "batch_size": 4, "learning_rate": 0.01, **SMALL[method_class], **settings})
    return method_class(settings, backbone, stream.scenario, Draws("test", method_class.__name__, 0)).eval()


def learned(method_class, backbone, stream, **settings):
    method = build(method_class, backbone, stream, **settings)
    for task in stream.tasks:
        method.learn(task)
    return method


@pytest.mark.parametrize("method_class", list(SMALL))
def test_crops_are_trained_on_with_their_own_query(method_class, small_backbone, make_stream):
    stream = make_stream()
    method, pairs = build(method_class, small_backbone, stream, crop_scale=0.3, epochs=1), []
    loss = method.loss
    method.loss = lambda pixels, query, *others: pairs.append((pixels, query)) or loss(pixels, query, *others)
    method.learn(stream.tasks[0])
    plain = stream.tasks[0].train.pixels().flatten(1)
    for pixels, query in pairs:
        torch.testing.assert_close(query, small_backbone.pool_images(pixels), rtol=1e-4, atol=1e-5)
        assert torch.cdist(pixels.flatten(1), plain).min() > 0.1  # no image is shown whole
    with pytest.raises(BenchError, match="crop_scale=0"):
        build(method_class, small_backbone, stream, crop_scale=0.0)
    published = {name: method_class.settings_for(name).crop_scale for name in ("cifar100-10x10", "mini60-6x10")}
    assert published["cifar100-10x10"] < 0.1 and published["mini60-6x10"] == 1


def test_an_empty_prefix_changes_nothing(small_backbone):
    block, x = blocks(small_backbone.clip.visual)[0], torch.randn(2, 5, 32)
    none = torch.zeros(1, 0, 32)
    torch.testing.assert_close(block_with_prefix(block, x, none, none), block(x))


def test_prefix_attention_one_head_and_token_at_a_time(small_backbone):
    block, x = blocks(small_backbone.clip.visual)[0], torch.randn(1, 3, 32)
    keys, values = torch.randn(1, 2, 32), torch.randn(1, 2, 32)
    attention, heads = block.attn, block.attn.num_heads
    h = block.ln_1(x)[0]
    q, k, v = (h @ w.T + b for w, b in zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)))
    k, v, d = torch.cat([keys[0], k]), torch.cat([values[0], v]), 32 // heads
    mixed = torch.zeros(3, 32)
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        for token in range(3):
            weights = torch.softmax(k[:, part] @ q[token, part] / d**0.5, dim=0)
            mixed[token, part] = weights @ v[:, part]
    after = x[0] + attention.out_proj(mixed)
    expected = after + block.mlp(block.ln_2(after))
    torch.testing.assert_close(block_with_prefix(block, x, keys, values)[0], expected, rtol=1e-4, atol=1e-5)


def test_inserted_tokens_leave_the_others_as_they_are(small_backbone):
    visual, pixels = small_backbone.clip.visual, torch.randn(2, 3, 32, 32)
    plain, longer = image_tokens(visual, pixels), image_tokens(visual, pixels, torch.randn(2, 3, 32))
    assert longer.shape[1] == plain.shape[1] + 3
    torch.testing.assert_close(torch.cat([longer[:, :1], longer[:, 4:]], dim=1), plain)


@pytest.mark.parametrize("method_class", SMALL)
def test_learned_classes_are_scored_and_others_refused(method_class, small_backbone, make_stream):
    stream = make_stream()
    method = build(method_class, small_backbone, stream)
    pixels = stream.tasks[0].train.pixels()
    with pytest.raises(LookupError):
        method.logits(pixels, [0])
    method.learn(stream.tasks[0])
    assert method.logits(pixels, [1, 0]).shape == (len(pixels), 2)
    with pytest.raises(LookupError):
        method.logits(pixels, [0, 2])


def test_training_teaches(small_backbone, make_stream):
    stream = make_stream(sizes=(3,))
    pixels, labels = stream.tasks[0].train.pixels(), stream.tasks[0].train.labels
    for method_class in SMALL:
        method = learned(method_class, small_backbone, stream, epochs=30, mirrored_view=False)
        accuracy = (method.logits(pixels, range(3)).argmax(dim=-1) == labels).float().mean().item()
        assert accuracy > 0.6, method_class.__name__


def test_l2p_takes_the_nearest_keys_of_each_image(small_backbone, make_stream):
    method = build(L2P, small_backbone, make_stream())
    query = torch.randn(3, 32)
    for row, chosen in zip(query, method.select(method.similarity(query), None)):
        cosines = [torch.cosine_similarity(row, key, dim=0).item() for key in method.keys]
        assert chosen.tolist() == sorted(range(4), key=lambda m: -cosines[m])[:2]


def test_a_vote_gives_all_images_the_most_frequent_prompts(small_backbone, make_stream):
    method = build(L2P, small_backbone, make_stream(), batch_vote=True)
    similarity = torch.tensor([[3.0, 2.0, 1.0, 0.0], [3.0, 1.0, 2.0, 0.0], [0.0, 1.0, 3.0, 2.0]])  # {0,1}, {0,2}, {2,3}
    assert {tuple(sorted(row)) for row in method.select(similarity, None).tolist()} == {(0, 2)}
    assert method.test_batches is not None


def test_a_task_s_own_prompts(small_backbone, make_stream):
    method = build(L2P, small_backbone, make_stream(), own_prompts=True, copy_prompts=True)
    assert method.select(torch.zeros(2, 4), task=1).tolist() == [[2, 3]] * 2
    before = method.pool[:2].detach().clone()
    method.start_task(make_stream().tasks[1])
    assert torch.equal(method.pool[2:], before)


def test_dualprompt_trains_the_task_s_prefix_and_chooses_by_key(small_backbone, make_stream):
    stream = make_stream()
    method = build(DualPrompt, small_backbone, stream)
    method.learn(stream.tasks[0])
    first = method.expert[:, :, 0].detach().clone()
    method.learn(stream.tasks[1])
    assert torch.equal(method.expert[:, :, 0], first)
    query = torch.randn(4, 32)
    expected = [max(range(2), key=lambda t: torch.cosine_similarity(row, method.keys[t], dim=0)) for row in query]
    assert method.select(method.similarity(query), None).tolist() == expected


def test_the_port_s_layout_lets_neighbours_in(small_backbone, make_stream):
    pixels = make_stream().tasks[0].train.pixels()[:4]
    for layout, depends in (("correct", False), ("port", True)):
        method = build(DualPrompt, small_backbone, make_stream(), layout=layout)
        chosen = torch.tensor([0, 1, 0, 1])
        together = method.read_class_token(pixels, chosen)
        alone = torch.cat([method.read_class_token(pixels[k : k + 1], chosen[k : k + 1]) for k in range(4)])
        assert torch.allclose(together, alone, atol=1e-4) != depends


def test_orthogonal_rows_are_orthogonal_and_of_unit_length():
    before = orthogonal_rows(torch.zeros(0, 6), torch.randn(2, 6))
    rows = torch.cat([before, orthogonal_rows(before, torch.randn(3, 6))])
    torch.testing.assert_close(rows @ rows.T, torch.eye(5), rtol=0, atol=1e-5)
    assert squared_off_identity(rows).item() < 1e-9


def test_coda_prefix_component_by_component(small_backbone, make_stream):
    stream = make_stream()
    method = learned(CODAPrompt, small_backbone, stream)
    query = torch.randn(2, 32)
    keys, values = method.prefix(1, query, None)
    for b in range(2):
        prompt = torch.zeros(4, 32)
        for m in range(int(method.filled)):
            alpha = torch.cosine_similarity(query[b] * method.attention[1, m], method.keys[1, m], dim=0)
            prompt = prompt + alpha * method.components[1, m]
        torch.testing.assert_close(torch.cat([keys[b], values[b]]), prompt, rtol=1e-4, atol=1e-5)


def test_earlier_components_do_not_move(small_backbone, make_stream):
    stream = make_stream()
    method = build(CODAPrompt, small_backbone, stream)
    method.learn(stream.tasks[0])
    before = method.components[:, :3].detach().clone()
    assert not method.components[:, 3:].any()
    method.learn(stream.tasks[1])
    assert torch.equal(method.components[:, :3], before) and method.components[:, 3:].any()


def test_a_shallow_tower_is_refused(small_backbone, make_stream):
    with pytest.raises(BenchError, match="layer 4"):
        build(CODAPrompt, small_backbone, make_stream(), layers=(0, 4))
    with pytest.raises(BenchError, match="one kind of prefix"):
        DualPrompt.Settings(general_layers=(1,), expert_layers=(1, 2))
