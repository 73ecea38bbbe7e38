"""From a name to a protocol.

A name is one of these, with or without options (bench/streams/options.py) after a "+":

    a registered name     an entry point of `bench.protocols`
    of a family           an entry point of `bench.protocol_families`: a function that gets a name and returns its
                          Protocol, or None if the name is not of its form. It raises BenchError for a name of its form
                          that it cannot serve; that is said if no other family can.
"""

import re
from pathlib import Path

from bench.errors import BenchError, unknown_name
from bench.streams import validation
from bench.streams.options import FIRST_TASKS, with_options
from bench.streams.protocol import Protocol
from bench.system import registry


def looks_possible(name: str) -> bool:
    """Could `find` know this name? Cheap: imports nothing, and only catches names that are surely wrong."""
    if name in registry.names("protocol") or re.search(r"[+:]|\d+x\d+", name):
        return True
    return any(entry.package != registry.BUILT_IN for entry in registry.entries("protocol-family"))


def find(name: str) -> Protocol:
    """The Protocol of that name; its own name is the canonical form of the given one."""
    base, options = split(name)
    protocol = _without_options(base)
    return with_options(protocol, options) if options else protocol


def split(name: str) -> tuple[str, list[str]]:
    """(name without options, options); a "+" in the folders of a path is none.

    >>> split("cifar100-10x10+zscl+budgeted"), split("folder:a+b/pets-5x4")
    (('cifar100-10x10', ['zscl', 'budgeted']), ('folder:a+b/pets-5x4', []))
    """
    folders, slash, last = name.rpartition("/")
    base, *options = last.split("+")
    return folders + slash + base, options


def as_published(name: str) -> str:
    """The stream that a cut one is a part of: without the options that take tasks or test images away for a search.

    >>> as_published("mini60-6x10+replay-free+tasks=3+validation=20%")
    'mini60-6x10+replay-free'
    """
    base, options = split(validation.without(name))
    return "+".join([base, *(option for option in options if not FIRST_TASKS.fullmatch(option))])


def from_anywhere(name: str) -> str:
    """The name with which the same protocol is found from every working folder: a path in it is made absolute."""
    prefix, colon, rest = name.partition(":")
    if prefix != "folder" or not colon:
        return name
    return f"{prefix}:{Path(rest).expanduser().absolute()}"


def _without_options(name: str) -> Protocol:
    if name in registry.names("protocol"):
        return registry.load("protocol", name)
    families, broken = registry.load_all("protocol-family")
    complaint = None
    for family in sorted(families, key=_plugged_in):  # built-in ones first: a plug-in cannot take over their names
        try:
            found = families[family](name)
        except BenchError as error:
            complaint = complaint or error
            continue
        if found is not None:
            return found
    if complaint:
        raise complaint
    unknown = unknown_name("protocol", name, registry.names("protocol"))
    raise BenchError("; ".join([str(unknown), *broken])) if broken else unknown


def _plugged_in(family: str) -> bool:
    """Does another package bring this family?"""
    return any(entry.name == family and entry.package != registry.BUILT_IN for entry in registry.entries("protocol-family"))
