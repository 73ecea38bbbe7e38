import torch

from bench.clip.image_tower import blocks, image_tokens
from methods.coleclip.image_prompts import prompted_images, visible_tokens


def pixels_of(n=3):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def prompts_of(m, p, width=32):
    return torch.randn(m, p, width, generator=torch.Generator().manual_seed(1))


def in_one_sequence(visual, pixels, prompts):
    """All tokens through open_clip's own blocks, with a mask."""
    m, p, _ = prompts.shape
    front = visual.ln_pre(prompts.flatten(0, 1)).expand(len(pixels), -1, -1)
    x = torch.cat([front, image_tokens(visual, pixels)], dim=1)
    owner = [j for j in range(m) for _ in range(p)] + [-1] * (x.shape[1] - m * p)  # -1: the image's own
    hidden = torch.tensor([[other >= 0 and (own < 0 or other > own) for other in owner] for own in owner])
    mask = torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)
    for block in blocks(visual):
        x = block(x, attn_mask=mask)
    projected = visual.ln_post(x) @ visual.proj
    return torch.stack([*(projected[:, j * p : (j + 1) * p].mean(dim=1) for j in range(m)), projected[:, m * p]], dim=1)


def test_outputs_are_those_of_one_sequence_with_a_mask(small_backbone):
    visual, pixels = small_backbone.clip.visual, pixels_of()
    for m, p in ((1, 1), (3, 2)):
        prompts = prompts_of(m, p)
        expected = in_one_sequence(visual, pixels, prompts)
        torch.testing.assert_close(prompted_images(visual, pixels, prompts), expected, rtol=1e-4, atol=1e-4)


def test_the_class_token_is_frozen_clips_and_old_prompts_do_not_see_new_ones(small_backbone):
    visual, pixels, prompts = small_backbone.clip.visual, pixels_of(), prompts_of(3, 2)
    outputs = prompted_images(visual, pixels, prompts)
    torch.testing.assert_close(outputs[:, -1], small_backbone.encode_images(pixels), rtol=1e-4, atol=1e-5)
    fewer = prompted_images(visual, pixels, prompts[:2])
    torch.testing.assert_close(outputs[:, :2], fewer[:, :2], rtol=1e-4, atol=1e-5)
    alone = prompted_images(visual, pixels, prompts[2:])
    assert not torch.allclose(outputs[:, 2], alone[:, 0], atol=1e-3)  # a new one sees the old ones
    assert prompted_images(visual, pixels, prompts[:0]).shape == (3, 1, 24)


def test_gradients_are_those_of_one_sequence(small_backbone):
    visual, pixels = small_backbone.clip.visual, pixels_of()
    gradients = []
    for run in (prompted_images, in_one_sequence):
        prompts = prompts_of(2, 2).requires_grad_()
        run(visual, pixels, prompts)[:, 1].square().sum().backward()
        gradients.append(prompts.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    assert gradients[0].any(dim=-1).all()


def test_images_are_counted_once(small_backbone):
    before = small_backbone.image_passes
    prompted_images(small_backbone.clip.visual, pixels_of(), prompts_of(2, 1))
    assert small_backbone.image_passes - before == 3


def test_visible_tokens():
    assert visible_tokens(2, 2, 1).int().tolist() == [[1, 1, 0, 0, 1], [1, 1, 0, 0, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
