"""Hyper-parameters, as methods state them: no torch here, so that they can be read without it."""

import dataclasses
import math
from typing import Any, ClassVar

Number = int | float
TOLERANCE = 1e-9  # of a step, for a value that lies on the grid but for rounding


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers that a search may try for a hyper-parameter, both ends included; whole ones where both ends are.

    log: drawn evenly on a logarithmic scale, as learning rates are. step: only low, low + step, ...; not both.

    >>> Range(1e-4, 0.1, log=True).contains(0.01), Range(2, 8, step=2).contains(5), Range(1, 9).contains(2.5)
    (True, False, False)
    """

    low: Number
    high: Number
    log: bool = False
    step: Number | None = None

    KEYS: ClassVar[tuple[str, ...]] = ("low", "high", "log", "step")

    def __post_init__(self) -> None:
        numbers = [self.low, self.high, *([] if self.step is None else [self.step])]
        if any(type(number) not in (int, float) or not math.isfinite(number) for number in numbers):
            raise ValueError("low, high and step of a range are numbers")
        if not self.low < self.high:
            raise ValueError(f"low {self.low} of a range is not below its high {self.high}")
        if type(self.log) is not bool:
            raise ValueError("log of a range is true or false")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a range on a logarithmic scale begins above 0 and has no step")
        if self.step is not None and self.step <= 0:
            raise ValueError("step of a range is above 0")
        if self.whole and self.step is not None and type(self.step) is not int:
            raise ValueError("step of a range of whole numbers is a whole number")

    @property
    def whole(self) -> bool:
        return type(self.low) is int and type(self.high) is int

    def contains(self, value: Any) -> bool:
        """May the search propose this value?"""
        if type(value) not in ((int,) if self.whole else (int, float)) or not self.low <= value <= self.high:
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return abs(steps - round(steps)) < TOLERANCE

    def ends(self) -> tuple[Any, ...]:
        """Values whose soundness says that of all."""
        return self.low, self.high

    def __str__(self) -> str:
        """As `bench show` prints it.

        >>> print(Range(1e-4, 0.1, log=True), "|", Range(2, 8, step=2))
        0.0001 to 0.1, logarithmic | 2 to 8, in steps of 2
        """
        how = ", logarithmic" if self.log else f", in steps of {self.step}" if self.step is not None else ""
        return f"{self.low} to {self.high}{how}"


@dataclasses.dataclass(frozen=True, init=False)
class Choices:
    """The values that a search may try for a hyper-parameter, in no order.

    >>> print(Choices("sgd", "adamw")), Choices(4, 8).contains(8)
    sgd, adamw
    (None, True)
    """

    choices: tuple[Any, ...]

    KEYS: ClassVar[tuple[str, ...]] = ("choices",)

    def __init__(self, *choices: Any) -> None:
        kinds = (bool, int, float, str)
        found = tuple(tuple(one) if isinstance(one, list) else one for one in choices)
        for one in found:
            parts = one if isinstance(one, tuple) else (one,)
            if not all(part is None or type(part) in kinds for part in parts):
                raise ValueError(f"a choice is a number, a text, true, false or a list of numbers, not {one!r}")
        if len(found) < 2 or len({repr(one) for one in found}) < len(found):
            raise ValueError("choices are two different values or more")
        object.__setattr__(self, "choices", found)

    def contains(self, value: Any) -> bool:
        """May the search propose this value?"""
        return self.place_of(value) is not None

    def place_of(self, value: Any) -> int | None:
        """Where among the choices a value stands; lists are as tuples are, for JSON has no others."""
        wanted = tuple(value) if isinstance(value, list) else value
        same = (place for place, one in enumerate(self.choices) if type(wanted) is type(one) and wanted == one)
        return next(same, None)

    def ends(self) -> tuple[Any, ...]:
        """Values whose soundness says that of all."""
        return self.choices

    def __str__(self) -> str:
        return ", ".join(",".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in self.choices)


Search = Range | Choices


def to_plain(search: Search) -> dict[str, Any]:
    """As plain data that JSON and TOML keep; what says nothing is left out.

    >>> to_plain(Range(0, 5)), to_plain(Choices(4, 8))
    ({'low': 0, 'high': 5}, {'choices': [4, 8]})
    """
    if isinstance(search, Choices):
        return {"choices": [list(one) if isinstance(one, tuple) else one for one in search.choices]}
    found = {key: getattr(search, key) for key in Range.KEYS}
    return {key: value for key, value in found.items() if value is not None and value is not False}


def from_plain(facts: Any) -> Search:
    """What `to_plain` gave, or what a person has written in its form; ValueError with one line if it is of no form."""
    forms = f"{{{', '.join(Range.KEYS)}}} or {{choices}}"
    if not isinstance(facts, dict):
        raise ValueError(f"a table is wanted, {forms}")
    if set(facts) == set(Choices.KEYS):
        if not isinstance(facts["choices"], list):
            raise ValueError("choices are a list")
        return Choices(*facts["choices"])
    if {"low", "high"} <= set(facts) <= set(Range.KEYS):
        return Range(**facts)
    raise ValueError(f"{', '.join(map(str, facts)) or 'nothing'} is given; {forms} is wanted, low and high at least")


def setting(
    default: Any, help: str, source: str = "", *, added_later: bool = False, names_file: bool = False, required: bool = False,
    search: Search | None = None,
) -> Any:  # fmt: skip
    """A hyper-parameter: its default, what it does (with its unit), and where the default comes from.

    source: without one, that of a built-in method is its authors' code, and of any other nothing is stated
    (bench/learning/stated.py). added_later: there were results before it, and its default is what they were computed with. At its
    default it is no part of a run's identity, so that these results stay valid. names_file: the value is the path of a file, or
    None; a run's identity has the digest of what is in it, and not where it lies (bench/system/named_files.py).
    required: the method cannot run where it is None, so that a plan says so before anything runs. search: what `bench tune`
    tries; None: it leaves this one alone. It says nothing about a run, and is no part of what identifies one.
    """
    known: dict[str, Any] = {
        "help": help, "source": source, "added_later": added_later, "names_file": names_file, "required": required,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=known | ({"search": search} if search else {}))


def search_space(settings: Any) -> dict[str, Search]:
    """What a search tries for the hyper-parameters of this class (or object), in their order."""
    found = {field.name: field.metadata.get("search") for field in dataclasses.fields(settings)}
    return {name: search for name, search in found.items() if search is not None}


def wanting(settings: Any) -> list[str]:
    """The hyper-parameters that have no value although the method needs one."""
    fields = dataclasses.fields(settings)
    return [field.name for field in fields if field.metadata.get("required") and getattr(settings, field.name) is None]


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """For methods without hyper-parameters."""
