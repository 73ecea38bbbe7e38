"""Validation: a fixed part of the training images is scored in the place of the test images, for choosing recipes.

    mini60-6x10+validation=20%            a fifth of the training images of every class, rounded to the nearest number
    mini60-6x10+validation=5-per-class    five of them

What is feared: a recipe that has seen the test images, by whatever way. So they are not there: who asks a stream for its test
images gets the part that is held out, and the data set's own test split is never opened (bench/streams/sources.py).

The choice is drawn once for each class of a data set, like few shots: the same on every machine, for all methods, seeds, orders
and budgets, and a larger part holds the smaller ones. It is taken from the training images that the protocol has: of a few-shot
stream from its shots, since it has no others. `--limit-train` and `--limit-test` come after it: they keep the first so many of
what is left for training, and of what is held out. Needs no image, and no torch.
"""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.errors import BenchError
from bench.system.seeds import stable_seed

OPTION = "validation="
WRITTEN = re.compile(r"(?P<number>\d{1,9})(?P<unit>%|-per-class)")
RULE = "drawn by this package, once for each class of a data set, out of the protocol's training images"
WANTED = "+validation=N% with N from 1 to 99, or +validation=N-per-class with N from 1 on"


@dataclass(frozen=True)
class Validation:
    """How many of the training images of every class are held out."""

    number: int
    unit: Literal["%", "-per-class"]

    @classmethod
    def parse(cls, option: str) -> "Validation":
        """Of the option as a user writes it, without its "+"."""
        found = WRITTEN.fullmatch(option.removeprefix(OPTION))
        number = int(found["number"]) if found else 0
        if not found or number < 1 or (found["unit"] == "%" and number > 99):
            raise BenchError(f"+{option}: not a part of the training images that can be held out; write {WANTED}")
        return cls(number, "%" if found["unit"] == "%" else "-per-class")

    @property
    def text(self) -> str:
        """As names of protocols and `limits` of records have it.

        >>> Validation.parse("validation=020%").text, Validation.parse("validation=5-per-class").text
        ('20%', '5-per-class')
        """
        return f"{self.number}{self.unit}"

    @property
    def words(self) -> str:
        """
        >>> Validation(20, "%").words, Validation(5, "-per-class").words
        ('20% of the training images of every class', '5 of the training images of every class')
        """
        return f"{self.text.removesuffix('-per-class')} of the training images of every class"

    def of_class(self, images: int) -> int:
        """How many of so many images are held out: may be none, or more than there are.

        >>> [Validation(20, "%").of_class(images) for images in (2, 3, 16, 100)], Validation(5, "-per-class").of_class(3)
        ([0, 1, 3, 20], 5)
        """
        return (images * self.number + 50) // 100 if self.unit == "%" else self.number

    def complaint(self, images: int) -> str:
        """What is wrong with holding so many out of the different images of a class; empty if nothing is."""
        wanted = self.of_class(images)
        if wanted and wanted < images:
            return ""
        has = f"has {images} training image{'' if images == 1 else 's'}"
        if wanted > images:
            return f"{has}, fewer than the {wanted} to be held out"
        if images == 0:
            return has
        return f"{has}, of which {self.text} {'leaves none for training' if wanted else 'is less than one half of an image'}"

    def divided(self, rows: np.ndarray, labels: np.ndarray, dataset: str) -> dict[str, np.ndarray]:
        """ "train" and "test" -> their part of these rows of a data set's training split, in order; labels are the rows' own.

        An image that a class has several times among its shots is held out as a whole, and scored once. A class that cannot be
        divided (`complaint`) stays in training: a stream that learns it is refused.
        """
        held: list[np.ndarray] = []
        for label in np.unique(labels):
            members = np.unique(rows[labels == label])
            if not self.complaint(len(members)):
                order = np.random.default_rng(stable_seed("validation", dataset, int(label))).permutation(len(members))
                held.append(members[order[: self.of_class(len(members))]])
        test = np.sort(np.concatenate([np.zeros(0, np.int64), *held]))
        return {"train": rows[~np.isin(rows, test)], "test": test}


def without(name: str) -> str:
    """The name of the protocol whose training images these are: recipes are for both.

    >>> without("mini60-6x10+budgeted+validation=20%"), without("folder:a+validation=1%/pets-5x4")
    ('mini60-6x10+budgeted', 'folder:a+validation=1%/pets-5x4')
    """
    folders, slash, last = name.rpartition("/")
    base, *options = last.split("+")
    return folders + slash + "+".join([base, *(option for option in options if not option.startswith(OPTION))])
