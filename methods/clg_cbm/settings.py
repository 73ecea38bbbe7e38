"""The hyper-parameters of CLG-CBM."""

from dataclasses import dataclass
from pathlib import Path

from bench import BenchError, Range, setting

MINI_CONCEPTS = str(Path(__file__).parent / "mini_concepts.json")


@dataclass(frozen=True)
class CLGCBMSettings:
    """Defaults: what most of the authors' files of settings share."""

    concepts: str | None = setting(
        None, "JSON file {class: [sentences]}; the method cannot run without it (the mini world has one)", "none are shipped",
        names_file=True, required=True,
    )  # fmt: skip
    prefix: str = setting("A photo of the object with ", "stands before every concept; a space at its end is part of it")
    kept_per_class: int = setting(
        10, "K: so many concepts are kept for each class of a task, though not of each class", search=Range(2, 10)
    )
    search_epochs: int = setting(31, "passes over the task's images in the search for concepts")
    search_lr: float = setting(0.01, "of Adam in the search")
    division_power: float = setting(5.0, "p: the search's second loss is divided by the mean distance to this power")
    covariance_ridge: float = setting(
        1e-3, "added to the diagonal of the concepts' covariance, which few concepts leave singular; released: 0", "ours"
    )
    first_epochs: int = setting(60, "passes over the features on the first task")
    later_epochs: int = setting(60, "passes over the features on each later task")
    first_lr: float = setting(
        0.001, "of Adam on the first task; times 0.1 after each milestone", search=Range(1e-4, 0.1, log=True)
    )
    later_lr: float = setting(
        0.001, "of Adam on each later task; times 0.1 after each milestone", search=Range(1e-4, 0.1, log=True)
    )
    milestones: tuple[int, ...] = setting((30, 40, 50), "epochs, counted from each task's start, after which the rate falls")
    batch_size: int = setting(64, "features per step; samples of two old classes come on top")
    samples_per_class: int = setting(1, "samples of each of two old classes in a step")
    similarity_weight: float = setting(
        1.0, "weight of the likeness of concept scores and image-text similarities", search=Range(0.1, 10.0, log=True)
    )

    def __post_init__(self):
        counts = ("kept_per_class", "search_epochs", "first_epochs", "later_epochs", "samples_per_class")
        if min(getattr(self, name) for name in counts) < 1 or self.batch_size < 2:
            raise BenchError(f"{', '.join(counts)}: choose 1 or more; batch_size: 2 or more")
        if not self.covariance_ridge >= 0 or not self.similarity_weight >= 0:
            raise BenchError("covariance_ridge and similarity_weight: choose 0 or more")
