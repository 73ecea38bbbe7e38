"""Random draws that depend on what they are for, never on when they are made.

Every draw names its purpose. Its generator is seeded with a hash of (protocol, method, run seed, purpose), so neither
the order of methods, nor a resume, nor another draw made earlier can change a number.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch

from bench.system.seeds import stable_seed


class Draws:
    """The random draws of one run. Tests replace it with stored draws to replay somebody else's run.

    All draws are made on the CPU: a GPU run gets the same ones.
    """

    def __init__(self, protocol: str, method: str, seed: int):
        self.key = (protocol, method, seed)

    def generator(self, *purpose: object) -> torch.Generator:
        """A fresh generator for this purpose: ask twice and get the same numbers twice."""
        return torch.Generator().manual_seed(stable_seed(*self.key, *purpose))

    def normal(self, shape: Sequence[int], *purpose: object) -> torch.Tensor:
        """Standard normal draws of the given shape."""
        return torch.randn(tuple(shape), generator=self.generator(*purpose))

    def uniform(self, shape: Sequence[int], *purpose: object) -> torch.Tensor:
        """Uniform draws in [0, 1) of the given shape."""
        return torch.rand(tuple(shape), generator=self.generator(*purpose))

    def integers(self, high: int, shape: Sequence[int], *purpose: object) -> torch.Tensor:
        """Whole numbers, uniform in [0, high), of the given shape."""
        return torch.randint(high, tuple(shape), generator=self.generator(*purpose))

    def permutation(self, n: int, *purpose: object) -> torch.Tensor:
        """A random order of 0..n-1, shape (n,)."""
        return torch.randperm(n, generator=self.generator(*purpose))

    @contextlib.contextmanager
    def initialising(self, *purpose: object) -> Iterator[None]:
        """Layers built inside get their default initialisation from this purpose's own stream."""
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(stable_seed(*self.key, *purpose))
            yield
