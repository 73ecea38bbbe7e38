"""Mixed precision: the residual blocks of both towers compute in a half type, everything around them in float32.

Weights stay float32, and so does what runs between the blocks (the residual stream), the embeddings, the last
normalisation and the projection: nearly all the arithmetic is in the blocks, and most of the rounding error of encoding a
whole tower in bfloat16 comes from a residual stream in bfloat16. Because the blocks themselves switch, it holds wherever
they run: in the frozen backbone, in a method's trainable copy, and where a method runs the blocks one by one.

bfloat16 has float32's range, so gradients need no scaling. float16 has not: under it only passes without gradients are
mixed, and training computes in float32.
"""

import contextlib
from typing import cast

import torch

from bench.clip.tower_types import ClipModel, VisionTransformer
from bench.errors import BenchError

_COMPUTES_IN = "computes_in"  # the attribute of a block that says so; copies of the block have it too


def resolve_precision(precision: str, device: str) -> str:
    """"auto" is float32 on the CPU, and on a GPU bfloat16 where its hardware has it, else float16."""
    cuda = torch.device(device).type == "cuda"
    if precision == "auto":
        if not cuda:
            return "float32"
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if precision not in ("float32", "bfloat16", "float16"):
        raise BenchError(f"--precision {precision}: choose one of auto, float32, bfloat16, float16")
    if precision == "float16" and not cuda:
        raise BenchError("--precision float16 is for CUDA devices; use float32 or bfloat16 on the CPU")
    return precision


def compute_in(clip: ClipModel, precision: str, device: torch.device) -> None:
    """Let the blocks of this model, and of its copies, compute in that precision."""
    if precision == "float32":
        if device.type == "cuda":  # otherwise the patch embedding would be rounded to TF32's 10 bits
            torch.backends.cudnn.allow_tf32 = False
        return
    entered: list[contextlib.AbstractContextManager] = []  # a stack: a block inside a block leaves first

    def enter(module: torch.nn.Module, inputs: tuple[object, ...]) -> None:
        entered.append(computing_like(module))
        entered[-1].__enter__()

    def leave(module: torch.nn.Module, inputs: tuple[object, ...], output: object) -> object:
        entered.pop().__exit__(None, None, None)
        return output.float() if isinstance(output, torch.Tensor) else output

    for module in _blocks(clip):
        setattr(module, _COMPUTES_IN, (device.type, getattr(torch, precision)))
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave, always_call=True)  # also when the block fails: nothing stays switched


def computing_like(block: torch.nn.Module) -> contextlib.AbstractContextManager:
    """For code that calls the parts of a block itself: within it they compute in the precision of the whole block."""
    device, dtype = getattr(block, _COMPUTES_IN, ("cpu", torch.float32))
    if dtype == torch.float32 or (dtype == torch.float16 and torch.is_grad_enabled()):
        return contextlib.nullcontext()
    return torch.autocast(device, dtype)


def _blocks(clip: ClipModel) -> list[torch.nn.Module]:
    """The residual blocks of both towers; an image tower of another kind (residual network, timm) counts as one block."""
    visual = clip.visual
    if not hasattr(visual, "transformer"):
        return [visual, *clip.transformer.resblocks]
    return [*cast(VisionTransformer, visual).transformer.resblocks, *clip.transformer.resblocks]  # of any way of pooling
