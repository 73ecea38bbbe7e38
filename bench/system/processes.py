"""Several processes that carry out one run together: data parallel training with the numbers of one process.

Every process draws the same batches and holds the same weights. Of a batch it encodes its own part; the features of all parts
are put together on every process (`gathered`), which then computes the loss of the whole batch. Gradients flow into the own part
alone, so that their sum over the processes (`add_up`) is the gradient of that loss, whatever couples the images in it: a softmax
over the batch, say. A term without a part, of the weights alone, is the same everywhere, and counts once (`counted_once`).

torch's DistributedDataParallel is not used: it gathers gradients where a module's `forward` has been called, and takes their
mean. Methods call the towers of CLIP by other names, several times in an update and in parts (`accumulate`), and for a loss that
does not fall into parts the mean is wrong. The sum here is made by the same library (torch.distributed: gloo on the CPU, NCCL on
GPUs).

Whoever has started the processes watches over them (bench/runs/several_processes.py): it ends all when one is gone.
"""

import contextlib
import datetime
import hashlib
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as distributed

from bench.errors import RunFailure, first_line

BUCKET = 1 << 25  # numbers that are added up at once
POLL_SECONDS = 0.02


class LostProcesses(RunFailure):
    """This process cannot go on, because others are gone; they, or how they ended, say why."""


class Processes:
    """All of them, as one of them sees them: `count` processes of which it is number `place`, from 0."""

    count = 1
    place = 0

    @property
    def first(self) -> bool:
        """Does this one score and write?"""
        return self.place == 0

    def sizes(self, n: int) -> list[int]:
        """How many of n rows each process has: as equal as can be, the first ones one more."""
        return [n // self.count + (place < n % self.count) for place in range(self.count)]

    def part(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of this process; those of all processes one after the other are `rows`."""
        return rows if self.count == 1 else rows.split(self.sizes(len(rows)))[self.place]

    def gathered(self, own: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        """The rows (sizes[k], d) of every process k, one after the other; gradients flow into the own ones."""
        return own

    def counted_once(self, term: torch.Tensor) -> torch.Tensor:
        """A term of the loss that every process computes alike and in full: its gradients add up to one of it."""
        return term

    def add_up(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """The gradients of all processes, summed on each of them."""

    def total_of_others(self, number: int) -> int:
        """The sum of a number over the other processes."""
        return 0

    def meet(self) -> None:
        """Wait until every process is here, however long the slowest takes."""

    @contextlib.contextmanager
    def after_the_first(self) -> Iterator[None]:
        """What stands inside, the first process does before the others do."""
        if not self.first:
            self.meet()
        yield
        if self.first:
            self.meet()

    def refuse_other(self, state: Mapping[str, torch.Tensor], when: str) -> None:
        """RunFailure where these tensors are not the same bytes on every process: they would have to be."""


ALONE = Processes()


class Joined(Processes):
    """One of several. store: a file that all of them name; seconds: so long one waits for the others inside training."""

    def __init__(self, place: int, count: int, store: Path, device: str, seconds: float):
        self.place, self.count = place, count
        self._device = torch.device(device)
        self._store = distributed.FileStore(str(store), count)
        self._meetings = itertools.count()
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")  # all are on this machine
        with _others():
            distributed.init_process_group(
                "nccl" if self._device.type == "cuda" else "gloo", rank=place, world_size=count,
                store=distributed.PrefixStore("group", self._store), timeout=datetime.timedelta(seconds=seconds),
            )  # fmt: skip

    def gathered(self, own: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        largest = max(sizes)  # gloo gathers tensors of one shape alone
        padded = own.new_zeros(largest, *own.shape[1:])
        padded[: len(own)] = own.detach()
        found = [torch.empty_like(padded) for _ in sizes]
        with _others():
            distributed.all_gather(found, padded)
        parts = [rows[:size] for rows, size in zip(found, sizes)]
        parts[self.place] = own
        return torch.cat(parts)

    def counted_once(self, term: torch.Tensor) -> torch.Tensor:
        share = term / self.count
        return share + (term - share).detach()

    def add_up(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        bucket: list[torch.nn.Parameter] = []
        numbers = 0
        for weights in parameters:
            if bucket and numbers + weights.numel() > BUCKET:
                self._add_up(bucket)
                bucket, numbers = [], 0
            bucket.append(weights)
            numbers += weights.numel()
        if bucket:
            self._add_up(bucket)

    def _add_up(self, bucket: Sequence[torch.nn.Parameter]) -> None:
        """A weight that the part of one process has not reached has no gradient there, and none at all if that is so on all."""
        own = [torch.zeros_like(weights) if weights.grad is None else weights.grad for weights in bucket]
        reached = torch.tensor([float(weights.grad is not None) for weights in bucket], device=self._device)
        whole = torch.cat([*(gradient.flatten() for gradient in own), reached])
        with _others():
            distributed.all_reduce(whole)
        *sums, reached = whole.split([*(weights.numel() for weights in bucket), len(bucket)])
        for place, (weights, summed) in enumerate(zip(bucket, sums)):
            if weights.grad is not None or reached[place] > 0:
                weights.grad = summed.view_as(weights).to(weights.dtype)

    def total_of_others(self, number: int) -> int:
        whole = torch.tensor([number], dtype=torch.int64, device=self._device)
        with _others():
            distributed.all_reduce(whole)
        return int(whole) - number

    def meet(self) -> None:
        name = f"meeting {next(self._meetings)}"
        with _others():
            self._store.add(name, 1)
            while self._store.add(name, 0) < self.count:
                time.sleep(POLL_SECONDS)

    def refuse_other(self, state: Mapping[str, torch.Tensor], when: str) -> None:
        digest = hashlib.sha256()
        for name, value in state.items():
            digest.update(name.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        own = torch.frombuffer(bytearray(digest.digest()), dtype=torch.int64).view(1, -1).to(self._device)
        found = self.gathered(own, [1] * self.count)
        if bool((found != found[0]).any()):
            raise RunFailure(f"{when}: its processes have other weights than each other, so that nothing can be built on them")


@contextlib.contextmanager
def _others() -> Iterator[None]:
    """What goes wrong while this process waits for the others has its cause there."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostProcesses(f"the other processes of the run do not answer ({first_line(error)})") from error
