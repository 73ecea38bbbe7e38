"""What an author has stated, told apart from what a class has by default or has inherited.

A default of the harness is nobody's claim: a plug-in that says nothing about conformance has not been "checked by its formulas",
and one that extends a built-in method is not what that method's paper describes, nor is it compared with its authors' code.
"""

import dataclasses
from typing import Any

BUILT_IN = ("bench", "methods", "protocols")  # packages whose authors know their own defaults
UNSTATED = "nothing stated by its author"
AUTHORS_CODE = "authors' code"


def is_stated(kind: type, attribute: str) -> bool:
    """Does this class say it, or a base of it that is not this package's?"""
    place = next((base for base in kind.__mro__ if attribute in vars(base)), None)
    return place is not None and (is_built_in(kind) or not is_built_in(place))


def claim(kind: type, attribute: str) -> str:
    """What a class says of itself, or that it says nothing."""
    return (getattr(kind, attribute, "") or UNSTATED) if is_stated(kind, attribute) else UNSTATED


def scenarios_of(method: Any) -> list[str]:
    """The kinds of stream that a method runs on.

    In a task-agnostic stream the classes to come compete from the start, so a method that cannot score them has no part in it,
    whatever it says; one that learns all tasks at once is asked only when none is to come.
    """
    return [kind for kind in method.scenarios if kind != "task-agnostic" or method.zero_shot or method.joint]


def may_be_divided(method: Any) -> bool:
    """May one run of it be carried out by several processes? A plug-in that extends a built-in method has to say so itself:
    nobody else knows whether what it changes still divides."""
    return bool(method.several_processes) and is_stated(method, "several_processes")


def not_dividable(processes: int) -> str:
    """Why a method that may not be divided is refused."""
    return (
        f"--processes {processes}: one run of it cannot be divided over several processes; those of methods that fine-tune both "
        "towers can (bench show METHOD says which), and --jobs carries out several runs at a time"
    )


def needs_of(method: Any, settings: Any) -> tuple[str, ...]:
    """What a method needs of CLIP with these settings. What its author has not stated is everything: nobody has tried less."""
    if not is_stated(method, "needs"):
        return ("towers",)
    asking = method.__new__(method)
    object.__setattr__(asking, "settings", settings)
    return tuple(asking.needs)


def source_of(settings: type, field: dataclasses.Field) -> str:
    """Where a hyper-parameter's default comes from: for built-in methods their authors' code, unless it says otherwise."""
    if field.metadata.get("source"):
        return field.metadata["source"]
    place = next((base for base in settings.__mro__ if field.name in vars(base).get("__annotations__", {})), settings)
    return AUTHORS_CODE if is_built_in(place) else UNSTATED


def is_built_in(kind: type) -> bool:
    return kind.__module__.split(".")[0] in BUILT_IN
