"""What takes memory in a run, as sums: bytes by the numbers that they grow with. Arithmetic on shapes, measured nowhere.

Every built-in method has its terms in bench/runs/memory_sums.py. They are for telling that something cannot fit, so what never is
the largest part (heads, prompts, norms) is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.clip.tower_sizes import TowerSizes

FLOAT, DOUBLE, LONG = 4, 8, 8  # bytes of a number
PROMPT_TOKENS = 16  # of a class's name in its template, about
TEXT_KEPT = 4 << 30  # bytes of activations of texts at most: with more, the text tower computes them once more (text_tower.py)
BYTES_OF_A_FILE_NAME = 150  # of an image in a list, with its label
BYTES_OF_A_SCORE = 40  # of a test image after a task, for all sets of candidates
COPY, GRADIENT, MOMENTUM, ADAM = 1, 1, 1, 2  # what training holds of each weight, in numbers: the trained one, and so on


@dataclass(frozen=True)
class Scale:
    """What a run's memory grows with."""

    classes: int
    tasks: int
    train: float  # images of all tasks
    largest: float  # images of the largest task
    largest_classes: int  # its classes
    test: float
    exemplars: float  # images that the protocol lets a method keep
    towers: TowerSizes
    settings: Mapping[str, Any]
    processes: int = 1

    def setting(self, name: str, otherwise: float = 0) -> float:
        value = self.settings.get(name, otherwise)
        return float(value) if isinstance(value, int | float) else float(otherwise)

    @property
    def batch(self) -> float:
        """Images of a step on one device, at a time."""
        return self.setting("batch_size", 64) / self.setting("accumulate", 1) / self.processes


@dataclass(frozen=True)
class Term:
    """One part of what a run holds. host: in the machine's memory, also where training is on a GPU."""

    what: str
    bytes: float
    host: bool = False


Terms = Callable[[Scale], Sequence[Term]]


# -- of every run -------------------------------------------------------------------------------------------------


def always(s: Scale) -> list[Term]:
    """CLIP itself; per-sample scores stay in memory until they are written; the list of images."""
    return [
        Term("CLIP's weights", FLOAT * s.towers.parameters),
        Term("scores of the test images after every task", BYTES_OF_A_SCORE * s.tasks * s.test, host=True),
        Term("the list of images", BYTES_OF_A_FILE_NAME * (s.train + s.test), host=True),
    ]


# -- of families --------------------------------------------------------------------------------------------------


def class_vectors(s: Scale) -> list[Term]:
    return [Term("class vectors", FLOAT * s.classes * s.towers.width)]


def features(views: int = 1, pooled: bool = False, all_tasks: bool = False) -> Terms:
    """Embeddings of a task's images, or of those of all tasks: as they come from the store, and put together."""

    def terms(s: Scale) -> list[Term]:
        width = s.towers.pooled if pooled else s.towers.width
        if all_tasks:
            return [Term("embeddings of all training images", 2 * FLOAT * views * s.train * width)]
        return [Term("embeddings of the largest task's images", 2 * FLOAT * views * s.largest * width)]

    return terms


def exemplars(views: int = 2) -> Terms:
    """The protocol's exemplars as embeddings of so many views."""
    return lambda s: [Term("exemplars", FLOAT * views * s.exemplars * s.towers.width)]


def exemplar_pixels(s: Scale) -> list[Term]:
    return [Term("exemplars", 3 * s.exemplars * s.towers.image_size**2)]


def texts_trained(all_classes: bool = True, times: Callable[[Scale], float] = lambda s: 1) -> Terms:
    """Activations of prompts through which gradients flow; of all classes, or of a task's."""

    def terms(s: Scale) -> list[Term]:
        prompts = (s.classes if all_classes else s.largest_classes) * times(s)
        return [
            Term("activations of prompts", min(TEXT_KEPT, FLOAT * prompts * s.towers.kept_of_a_prompt(PROMPT_TOKENS))),
            Term("embedded prompts", FLOAT * prompts * PROMPT_TOKENS * s.towers.text_width),
        ]

    return terms


def images_trained(passes: float = 1) -> Terms:
    """Activations of a batch of images through which gradients flow."""
    return lambda s: [Term("activations of a batch of images", FLOAT * passes * s.batch * s.towers.kept_of_an_image)]


def both_towers(copies: float) -> Terms:
    """Both towers, so many numbers for each weight."""
    return lambda s: [Term("both towers, their gradients and the optimiser's state", FLOAT * copies * s.towers.parameters)]


def image_tower(copies: float) -> Terms:
    what = "the image tower, its gradients and the optimiser's state"
    return lambda s: [Term(what, FLOAT * copies * s.towers.image_parameters)]


def class_covariances(pooled: bool = False) -> Terms:
    """A Gaussian of every class: width^2 numbers."""

    def terms(s: Scale) -> list[Term]:
        width = s.towers.pooled if pooled else s.towers.width
        return [Term("a covariance of every class", FLOAT * s.classes * width**2)]

    return terms


def square(what: str, side: Callable[[Scale], float], times: float = 1, size: int = DOUBLE) -> Terms:
    """A matrix that grows with the square of something, held so many times."""
    return lambda s: [Term(what, size * times * side(s) ** 2)]


def numbers(what: str, count: Callable[[Scale], float], size: int = FLOAT) -> Terms:
    return lambda s: [Term(what, size * count(s))]
