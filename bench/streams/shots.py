"""Few-shot training sets: which images of every class are used. Needs no image, and no torch."""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.system.seeds import stable_seed


def digest(names: Sequence[str], labels: Sequence[int]) -> str:
    """Of the chosen images' file names, each behind its label: "12 image_0001.jpg", sorted, repeated as often as chosen.

    Another program that has chosen the same images has the same digest, in whatever folders they lie there.
    """
    lines = sorted(f"{label} {name}" for name, label in zip(names, labels, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class ShotRule:
    """A rule that chooses images."""

    rows: Callable[[np.ndarray, int, str], np.ndarray]  # (labels, shots, name of the data set) -> rows, in order
    summary: str  # in one line


def few_shots(labels: np.ndarray, shots: int, dataset: str) -> np.ndarray:
    """Rows of `shots` images of every class (all of a smaller one), in order.

    Drawn once for each class of a data set: equal for all methods, seeds and orders. Five shots are among the sixteen.
    """
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = np.random.default_rng(stable_seed("shots", dataset, int(label))).permutation(len(members))
        chosen.append(members[order[:shots]])
    return np.sort(np.concatenate(chosen))


def seed_0(labels: np.ndarray, shots: int, dataset: str) -> np.ndarray:
    """Rows of `shots` images of every class, in order; of a class that has fewer, some more than once.

    Python's random numbers, seeded with 0 for the data set, serve one class after the other, in the order in which they first
    appear: LADA's programs, in which every task is a process of its own (Dassl's generate_fewshot_dataset). The choice depends
    on the number of images of each class and their order alone.
    """
    numbers, chosen = random.Random(0), []
    for label in dict.fromkeys(labels.tolist()):
        members = np.flatnonzero(labels == label).tolist()
        chosen += numbers.sample(members, shots) if len(members) >= shots else numbers.choices(members, k=shots)
    return np.sort(np.array(chosen, dtype=np.int64))


RULES = {
    "own": ShotRule(few_shots, "drawn by this package, once for each class of a data set"),
    "seed-0": ShotRule(seed_0, "as LADA's programs draw them: Python's random numbers with seed 0, classes as they first appear"),
}
