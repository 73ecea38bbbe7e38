"""What lies between a time and its floor: products of small matrices, the optimiser, other operations, and the time between them.

Everything is done three times: once to warm up, once against the clock, and once under torch's profiler, which says what share of
the time each kind of operation has; it slows all down, so that its shares count and not its seconds.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from bench.images.dataset import Folders
from bench.runs import launch
from bench.runs.run import Run

PRODUCTS = (
    "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::_scaled_dot_product", "aten::mkldnn_convolution", "aten::dot",
)  # fmt: skip
DECOMPOSITIONS = ("aten::linalg_", "aten::_linalg", "aten::lu_", "aten::cholesky", "aten::triangular_solve")
OPTIMISERS = "aten::_fused_"  # of one operation for all weights; the steps of others count as other operations
HEADER = (
    "seconds", "floor (s)", "seconds / floor", "operations", "microseconds each", "matrix products", "decompositions",
    "fused optimiser", "other operations", "between operations",
)  # fmt: skip


@dataclass(frozen=True)
class Rest:
    """Seconds against the clock, and shares of the time under the profiler."""

    seconds: float
    calls: int
    products: float
    decompositions: float
    optimisers: float
    operations: float  # of all kinds

    def row(self, what: str, floor: float) -> Sequence[str]:
        named = (self.products, self.decompositions, self.optimisers)
        between = max(0.0, 1 - self.operations)  # Python, and what torch does between two operations of a backward pass
        shares = (*named, self.operations - sum(named), between)
        return [
            what, f"{self.seconds:.2f}", f"{floor:.3f}", f"{self.seconds / floor:.1f}" if floor >= 0.001 else "-",
            str(self.calls), f"{1e6 * self.seconds / self.calls:.0f}", *(f"{100 * share:.0f} %" for share in shares),
        ]  # fmt: skip


def of_a_run(run: Run, folders: Folders) -> Rest:
    """On stored features."""
    with tempfile.TemporaryDirectory() as folder:
        places = iter([dataclasses.replace(run, out=Path(folder) / name) for name in ("warm", "timed", "profiled")])
        return taken_apart(lambda: _carry_out(next(places), folders))


def taken_apart(work: Callable[[], object]) -> Rest:
    work()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    with profiler(activities=[ProfilerActivity.CPU], acc_events=True) as found:
        began = time.perf_counter()
        work()
        whole = 1e6 * (time.perf_counter() - began)
    events = [event for event in found.key_averages() if event.key.startswith("aten::")]

    def share(names: str | tuple[str, ...]) -> float:
        return sum(event.self_cpu_time_total for event in events if event.key.startswith(names)) / whole

    calls = sum(event.count for event in events)
    return Rest(seconds, calls, share(PRODUCTS), share(DECOMPOSITIONS), share(OPTIMISERS), share("aten::"))


def _carry_out(run: Run, folders: Folders) -> None:
    outcome = launch.carry_out(run, folders)
    assert outcome.status == "finished", outcome.reason
