"""What lies between a run's time and its floor: products of small matrices, other operations, and the time between operations.

Every run is carried out three times on stored features: once to warm up, once against the clock, and once under torch's profiler,
which says what share of the time each kind of operation has; it slows a run down, so that its shares count and not its seconds.
"""

import dataclasses
import tempfile
import time
from collections.abc import Sequence
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
HEADER = (
    "method", "seconds", "floor (s)", "seconds / floor", "operations", "microseconds each", "matrix products", "decompositions",
    "other operations", "between operations",
)  # fmt: skip


@dataclass(frozen=True)
class Rest:
    """One run: seconds against the clock, and shares of the time under the profiler."""

    seconds: float
    calls: int
    products: float
    decompositions: float
    others: float

    @property
    def between(self) -> float:
        """Python, and what torch does between two operations of a backward pass."""
        return max(0.0, 1 - self.products - self.decompositions - self.others)

    def row(self, method: str, floor: float) -> Sequence[str]:
        shares = (self.products, self.decompositions, self.others, self.between)
        return [
            method, f"{self.seconds:.1f}", f"{floor:.2f}", f"{self.seconds / floor:.0f}" if floor >= 0.01 else "-",
            str(self.calls), f"{1e6 * self.seconds / self.calls:.0f}", *(f"{100 * share:.0f} %" for share in shares),
        ]  # fmt: skip


def measured(run: Run, folders: Folders) -> Rest:
    with tempfile.TemporaryDirectory() as folder:
        places = [dataclasses.replace(run, out=Path(folder) / name) for name in ("warm", "timed", "profiled")]
        _carry_out(places[0], folders)
        began = time.perf_counter()
        _carry_out(places[1], folders)
        seconds = time.perf_counter() - began
        with profiler(activities=[ProfilerActivity.CPU], acc_events=True) as found:
            began = time.perf_counter()
            _carry_out(places[2], folders)
            whole = 1e6 * (time.perf_counter() - began)
    events = [event for event in found.key_averages() if event.key.startswith("aten::")]
    own = [(event.key, event.self_cpu_time_total, event.count) for event in events]
    products = sum(spent for name, spent, _ in own if name.startswith(PRODUCTS))
    decompositions = sum(spent for name, spent, _ in own if name.startswith(DECOMPOSITIONS))
    all_of_them = sum(spent for _, spent, _ in own)
    return Rest(
        seconds, sum(count for _, _, count in own), products / whole, decompositions / whole,
        (all_of_them - products - decompositions) / whole,
    )  # fmt: skip


def _carry_out(run: Run, folders: Folders) -> None:
    outcome = launch.carry_out(run, folders)
    assert outcome.status == "finished", outcome.reason
