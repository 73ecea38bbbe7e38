"""What the measurements share: phases of training timed step by step, and how their tables are written."""

import contextlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch
from tabulate import tabulate
from torch.optim.optimizer import register_optimizer_step_post_hook

from methods.cgil.alignment import ClassPrompts
from methods.cgil.stacked import groups_of_classes
from methods.cgil.vae import VAEs
from methods.shared import batches

MEASURED = Path(__file__).parent / "measured"  # tables that the docs show


@dataclass
class Phase:
    """One training loop: `total` steps, of which the measured ones took `seconds` each."""

    total: int
    seconds: list[float] = field(default_factory=list)

    @property
    def missing(self) -> int:
        return self.total - len(self.seconds)

    @property
    def seconds_missing(self) -> float:
        """What the steps that were not made would have taken: each the mean of the measured ones but the first."""
        return self.missing * statistics.fmean(self.seconds[1:] or self.seconds) if self.missing else 0.0


@contextlib.contextmanager
def first_steps_only(limit: int | None) -> Iterator[list[Phase]]:
    """Every training loop that methods share ends after `limit` steps (None: never); the loops that there were.

    The loops are those over `methods.shared.batches.training_batches`, prompt alignment and the fits of VAEs. Each knows and uses
    its full number of steps, for its schedule of rates: it is only cut short.
    """
    phases: list[Phase] = []
    with contextlib.ExitStack() as patches:
        original, limited = batches.training_batches, _limited_batches(limit, phases)
        for module in list(sys.modules.values()):  # methods import the function by its name
            if getattr(module, "training_batches", None) is original:
                patches.enter_context(mock.patch.object(module, "training_batches", limited))
        patches.enter_context(mock.patch.object(ClassPrompts, "align", _limited_alignment(limit, phases)))
        patches.enter_context(mock.patch.object(VAEs, "fit", _limited_fit(limit, phases)))
        yield phases


def _limited_batches(limit: int | None, phases: list[Phase]) -> Callable:
    original = batches.training_batches

    def training_batches(draws, *, purpose, **size):
        phase = Phase(batches.steps_within_budget(**size))
        phases.append(phase)
        for step in original(draws, purpose=purpose, **size):
            if len(phase.seconds) == limit:
                return
            started = time.perf_counter()
            yield step
            phase.seconds.append(time.perf_counter() - started)

    return training_batches


class _Enough(Exception):
    pass


def _limited_alignment(limit: int | None, phases: list[Phase]) -> Callable:
    """Two phases: the embeddings that are drawn for each epoch, and the steps."""
    original = ClassPrompts.align

    def align(self, n, embeddings, labels, *others):
        epochs = self.settings.alignment_epochs
        drawing, steps = Phase(epochs), Phase(epochs * math.ceil(len(labels) / self.settings.alignment_batch))
        phases.extend((drawing, steps))

        def timed_embeddings(epoch: int) -> torch.Tensor:
            nonlocal last
            started = time.perf_counter()
            found = embeddings(epoch)
            drawing.seconds.append(time.perf_counter() - started)
            last += drawing.seconds[-1]  # not part of the next step
            return found

        def note_step(optimiser, arguments, keywords) -> None:
            nonlocal last
            now = time.perf_counter()
            steps.seconds.append(now - last)
            last = now
            if len(steps.seconds) == limit and steps.missing:
                raise _Enough

        handle, last = register_optimizer_step_post_hook(note_step), time.perf_counter()
        try:
            original(self, n, timed_embeddings, labels, *others)
        except _Enough:
            pass
        finally:
            handle.remove()

    return align


def _limited_fit(limit: int | None, phases: list[Phase]) -> Callable:
    """One phase, of the epochs of each group of classes; all must come to an end, so that there is something to draw from."""
    original = VAEs.fit

    def fit(self, classes, features, draws, check):
        groups = len(groups_of_classes(len(classes), count_parameters(self), features[0].device))
        phase = Phase(self.epochs * groups)
        phases.append(phase)
        last = time.perf_counter()

        def note_epoch(loss, what) -> None:
            """The fit calls this at the end of every epoch; the first one has the start of the networks in it."""
            nonlocal last
            check(loss, what)
            now = time.perf_counter()
            phase.seconds.append(now - last)
            last = now

        with mock.patch.object(self, "epochs", self.epochs if limit is None else min(limit, self.epochs)):
            original(self, classes, features, draws, note_epoch)

    return fit


def count_parameters(models: VAEs) -> int:
    """Of the network of one class."""
    return sum(math.prod(shape) for shape in models.encoder_shapes + models.decoder_shapes)


@contextlib.contextmanager
def optimiser_steps(now: Callable[[], float]) -> Iterator[list[list[float]]]:
    """When each step of each optimiser of torch was done, one list for every optimiser in order of its first step."""
    moments: dict[int, tuple[torch.optim.Optimizer, list[float]]] = {}  # holds the optimisers, so that ids stay theirs

    def note(optimiser, arguments, keywords) -> None:
        moments.setdefault(id(optimiser), (optimiser, []))[1].append(now())

    handle = register_optimizer_step_post_hook(note)
    lists: list[list[float]] = []
    try:
        yield lists
    finally:
        handle.remove()
        lists.extend(done for _, done in moments.values())


def show_table(path: Path) -> None:
    """A table that was measured before and kept as CSV, as Markdown."""
    import pandas as pd

    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    print(tabulate(rows, headers="keys", tablefmt="github", showindex=False, disable_numparse=True))


def write_table(rows: Sequence[dict], out: Path | None, heading: str) -> None:
    """To the screen and, with --out, to a file: .csv, or Markdown under its heading."""
    print(f"\n{heading}\n")
    print(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))
    if out is None:
        return
    if out.suffix == ".csv":
        import pandas as pd

        pd.DataFrame(rows).to_csv(out, index=False)
    else:
        out.write_text(f"{heading}\n\n{tabulate(rows, headers='keys', tablefmt='github', disable_numparse=True)}\n")
