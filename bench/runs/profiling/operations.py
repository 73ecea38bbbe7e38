"""How much a piece of code computes, and how much a device could compute in the same time."""

import math
import time
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

SIDE = {"cuda": 8192}  # of the square matrices whose product is timed; 1024 on others
SECONDS = {"cuda": 0.5}  # so long it is repeated; a second on others
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
aten = torch.ops.aten


class OperationCounter(TorchDispatchMode):
    """Counts, as a context, the floating-point operations of what torch computes inside: `total`.

    Matrix products, convolutions and attention, forward and backward, count by torch's own formulas, factorisations of matrices
    by those below; element-wise operations and what other libraries do are left out. Counting slows small operations down
    several times. (torch's FlopCounterMode also keeps account of modules, which takes three times as long again.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self._composite: dict[torch._ops.OpOverload, bool] = {}  # made of other operations, which are to be counted instead

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        keywords = keywords or {}
        formula = FORMULAS.get(function._overloadpacket)
        if formula is None and self._is_composite(function):
            with self:
                return function.decompose(*arguments, **keywords)
        found = function(*arguments, **keywords)
        if formula is not None:
            self.total += formula(*arguments, **keywords, out_val=found)
        return found

    def _is_composite(self, function: torch._ops.OpOverload) -> bool:
        """Such operations only arrive here in inference mode; otherwise autograd has taken them apart before."""
        if function not in self._composite:
            self._composite[function] = function.has_kernel_for_dispatch_key(COMPOSITE)
        return self._composite[function]


def _cholesky(matrix: torch.Tensor, *others: Any, **keywords: Any) -> int:
    *batch, n, _ = matrix.shape
    return math.prod(batch) * n**3 // 3


def _cholesky_solve(right: torch.Tensor, factor: torch.Tensor, *others: Any, **keywords: Any) -> int:
    """Two triangular systems."""
    *batch, n, columns = right.shape
    return math.prod(batch) * 2 * n**2 * columns


def _eigh(matrix: torch.Tensor, *others: Any, **keywords: Any) -> int:
    """Values and vectors of a symmetric matrix: about 9 n^3 (Golub and Van Loan, chapter 8)."""
    *batch, n, _ = matrix.shape
    return math.prod(batch) * 9 * n**3


FORMULAS = flop_registry | {
    aten.linalg_cholesky_ex: _cholesky,
    aten.cholesky_solve: _cholesky_solve,
    aten._linalg_eigh: _eigh,
}


def matrix_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of the product of two large square matrices: the fastest of several."""
    side = SIDE.get(device.type, 1024)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out, fastest = torch.empty_like(a), float("inf")
    began = time.perf_counter()
    while time.perf_counter() - began < SECONDS.get(device.type, 1.0) or fastest == float("inf"):
        started = clock(device)
        torch.mm(a, b, out=out)
        fastest = min(fastest, clock(device) - started)
    return 2 * side**3 / fastest


def clock(device: torch.device) -> float:
    """Seconds, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
