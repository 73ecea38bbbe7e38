"""What `--accelerate` switches on inside a run: compiled functions, or CUDA graphs. Without it nothing here does anything.

    compile    torch.compile for training: the residual blocks of both towers and the losses of CGIL's generators
    graphs     a step's gradients as one CUDA graph: CGIL's generators, and prompts aligned with what these draw

Both come to the plain path's numbers up to the rounding of another order of summation. Only training is accelerated, that is
where gradients are wanted: features of the frozen towers, which runs share in the feature store, and scores of test images are
always those of the plain path. How often something accelerated was called is counted, so that a run can say whether it was.

A CUDA graph is a list of kernels with their places in memory, recorded once for every shape. Hence its inputs are copied into the
places that it knows, and its results lie in the same places every time: `replayed` says what that asks of who uses it.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")
Replay = Callable[[], object]
SHAPES = 16  # that one function is recorded for; others take the plain path, each recording holds its memory
# torch finds compiled code on disk again whatever ATEN_CPU_CAPABILITY has become meanwhile: a loop for AVX-512 is then compiled
# for the shorter vectors of AVX2, and a loss is not finite. Code that is asked for with its vectors' bits is kept apart
VECTOR_BITS = {"AVX2": 256, "DEFAULT": 1}
WARM_UPS = 3  # calls before a recording, in which libraries choose their kernels and take their memory


@dataclass
class Acceleration:
    """How the run at work is accelerated."""

    by: str
    calls: int = 0  # of compiled functions and of graphs


_at_work: Acceleration | None = None


@contextlib.contextmanager
def accelerated(by: str) -> Iterator[Acceleration | None]:
    """What runs inside is accelerated so; "none" leaves all as it is."""
    global _at_work
    before, _at_work = _at_work, None if by == "none" else Acceleration(by)
    try:
        with _compiled_blocks() if by == "compile" else contextlib.nullcontext():
            yield _at_work
    finally:
        _at_work = before


def of_this_run() -> Acceleration | None:
    """What the run at work has been accelerated by so far."""
    return _at_work


def _by(what: str) -> Acceleration | None:
    return _at_work if _at_work is not None and _at_work.by == what else None


# -- compile ----------------------------------------------------------------------------------------------------


def compilable(function: Callable[P, T]) -> Callable[P, T]:
    """The function, compiled in a run that asks for it, where gradients are wanted. It must be one of tensors and modules alone,
    of many small operations, and be called with few different shapes: each is compiled anew."""

    @functools.wraps(function)
    def chosen(*args: P.args, **kwargs: P.kwargs) -> T:
        acceleration = _by("compile")
        if acceleration is None or not torch.is_grad_enabled():
            return function(*args, **kwargs)
        acceleration.calls += 1
        return _compiled(function)(*args, **kwargs)

    return chosen


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Once in a process: what was compiled for one run serves the next. torch imports its compiler at the first call."""
    bits = VECTOR_BITS.get(torch.backends.cpu.get_cpu_capability())
    return torch.compile(function, options={"cpp.simdlen": bits} if bits else None)


@contextlib.contextmanager
def _compiled_blocks() -> Iterator[None]:
    """Every residual block of open_clip, wherever it runs: the frozen backbone's, those of a method's copies, in a tower or one
    by one. On the class, since a copy of a module with a compiled function of its own would run the weights of the original."""
    from open_clip.transformer import ResidualAttentionBlock

    plain = ResidualAttentionBlock.forward
    ResidualAttentionBlock.forward = compilable(plain)
    try:
        yield
    finally:
        ResidualAttentionBlock.forward = plain


# -- graphs -----------------------------------------------------------------------------------------------------


def replaying() -> bool:
    """Whether the run at work replays graphs."""
    return _by("graphs") is not None


def replayed(function: Callable[..., T]) -> Callable[..., T]:
    """The function of tensors, recorded and replayed in a run that asks for graphs; otherwise the function itself.

    It must compute on the device alone, wait for nothing, and whatever else it reads (weights) has to stay where it lies and be
    changed in place. What it returns, tensors in tuples and lists, is valid until the next call; single numbers are kept longer.
    """
    acceleration = _by("graphs")
    return function if acceleration is None else Replayed(function, acceleration)


class Replayed:
    """A function as graphs, one for every shape of its arguments."""

    def __init__(self, function: Callable[..., Any], acceleration: Acceleration):
        self.function, self.acceleration = function, acceleration
        self.recorded: dict[tuple[Any, ...], tuple[list[torch.Tensor], Replay, Any]] = {}

    def __call__(self, *inputs: torch.Tensor) -> Any:
        shapes = tuple((x.shape, x.dtype, x.device) for x in inputs)
        if shapes not in self.recorded:
            if len(self.recorded) == SHAPES:
                return self.function(*inputs)
            places = [x.clone() for x in inputs]
            self.recorded[shapes] = (places, *record(self.function, places))
        places, replay, outputs = self.recorded[shapes]
        for place, x in zip(places, inputs):
            place.copy_(x)
        replay()
        self.acceleration.calls += 1
        return _with_own_numbers(outputs)


def record(function: Callable[..., Any], places: list[torch.Tensor]) -> tuple[Replay, Any]:
    """A CUDA graph of the function on what lies in these places: what replays it, and where its results lie then."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UPS):
            function(*places)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may go on preparing batches
        outputs = function(*places)
    return graph.replay, outputs


def _with_own_numbers(outputs: Any) -> Any:
    """A loss is added up and logged later, when the next replay has overwritten its place: copied."""
    if isinstance(outputs, torch.Tensor):
        return outputs.clone() if outputs.dim() == 0 else outputs
    return type(outputs)(map(_with_own_numbers, outputs))
