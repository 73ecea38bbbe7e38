"""From a name to a protocol.

A name is one of these, with or without options (bench/streams/options.py) after a "+":

    a registered name     an entry point of `bench.protocols`
    of a family           an entry point of `bench.protocol_families`: a function that gets a name and returns its
                          Protocol, or None if the name is not of its form. It raises BenchError for a name of its form
                          that it cannot serve; that is said if no other family can.
"""

import re
from collections.abc import Callable
from pathlib import Path

from bench.errors import BenchError, unknown_name
from bench.images.dataset import Dataset
from bench.streams import validation
from bench.streams.options import FIRST_TASKS, TEMPLATE, with_options
from bench.streams.protocol import Protocol
from bench.system import registry

QUOTES = ('"', "'")
# an option behind the first template: a template in quotes, one that goes on to the "+" of an option (a letter behind it and no
# space before it), or any other option
OPTION = re.compile(rf"""\+({TEMPLATE}(?:"[^"]*"(?=\+|$)|'[^']*'(?=\+|$)|.*?(?=(?<!\s)\+[a-z]|$))|[^+]*)""", re.DOTALL)

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


def find_protocol_or_dataset(name: str) -> Protocol | Dataset:
    """What a name that is not registered stands for: "folder:pets-5x4" is a protocol, "folder:pets" a data set."""
    if re.search(r"-\d+x\d+", split(name)[0]):
        return find(name)
    return registry.of_a_family(name) or find(name)


def split(name: str) -> tuple[str, list[str]]:
    """(name without options, options); a "+" in the folders of a path is none.

    A template goes on to the next option; in quotes it may hold anything. They are taken off.

    >>> split("cifar100-10x10+zscl+budgeted"), split("folder:a+b/pets-5x4")
    (('cifar100-10x10', ['zscl', 'budgeted']), ('folder:a+b/pets-5x4', []))
    >>> split("folder:pets-5x4+template=a/the {} + more.+budgeted")
    ('folder:pets-5x4', ['template=a/the {} + more.', 'budgeted'])
    """
    start = name.find(f"+{TEMPLATE}")
    start = len(name) if start < 0 else start
    folders, slash, last = name[:start].rpartition("/")
    base, *options = last.split("+")
    return folders + slash + base, options + [_unquoted(option) for option in OPTION.findall(name[start:])]


def _unquoted(option: str) -> str:
    value = option.removeprefix(TEMPLATE)
    quoted = value != option and len(value) > 1 and value[0] in QUOTES and value[-1] == value[0]
    return TEMPLATE + value[1:-1] if quoted else option


def as_published(name: str) -> str:
    """The stream that a cut one is a part of: without the options that take tasks or test images away for a search.

    >>> as_published("mini60-6x10+replay-free+tasks=3+validation=20%")
    'mini60-6x10+replay-free'
    """
    base, options = split(validation.without(name))
    return "+".join([base, *(option for option in options if not FIRST_TASKS.fullmatch(option))])


def from_anywhere(name: str) -> str:
    """The name with which the same protocol is found from every working folder: a path in it is made absolute.

    Templates come last, in quotes.

    >>> from_anywhere("folder:/a/pets-5x4+template=a {}, say.+budgeted")
    'folder:/a/pets-5x4+budgeted+template="a {}, say."'
    """
    return _with_path(name, lambda path: path.expanduser().absolute())


def in_folder(name: str, folder: Path | None) -> str:
    """The name with the last part of its path alone, or with that in another folder; one without a path as it is.

    >>> in_folder("folder:/a/pets-5x4+budgeted", None), in_folder("folder:/a/pets-5x4", Path("/b"))
    ('folder:pets-5x4+budgeted', 'folder:/b/pets-5x4')
    """
    return _with_path(name, lambda path: folder / path.name if folder else Path(path.name))


def _with_path(name: str, change: Callable[[Path], Path]) -> str:
    base, options = split(name)
    prefix, colon, rest = base.partition(":")
    if prefix in ("folder", "embeddings") and colon:
        base = f"{prefix}:{change(Path(rest))}"
    templates = [option.removeprefix(TEMPLATE) for option in options if option.startswith(TEMPLATE)]
    others = [option for option in options if not option.startswith(TEMPLATE)]
    return "+".join([base, *others, *(f"{TEMPLATE}{_quoted(one)}" for one in templates)])


def _quoted(template: str) -> str:
    mark = next((mark for mark in QUOTES if mark not in template), "")
    return f"{mark}{template}{mark}"


def split_list(text: str) -> list[str]:
    """Names of protocols that are separated by commas; a comma of a template separates nothing.

    >>> split_list("mini60-6x10, folder:a/pets-5x4+template=a {}, a type of pet.,mini60-3x20")
    ['mini60-6x10', 'folder:a/pets-5x4+template=a {}, a type of pet.', 'mini60-3x20']
    """
    found: list[str] = []
    for piece in text.split(","):
        if found and _goes_on(found[-1], piece):
            found[-1] += f",{piece}"
        else:
            found.append(piece)
    return [name.strip() for name in found if name.strip()]


def _goes_on(before: str, piece: str) -> bool:
    """Does a template that has begun before a comma go on behind it?"""
    _, begun, value = before.rpartition(f"+{TEMPLATE}")
    if not begun:
        return False
    if value[:1] in QUOTES and value.count(value[0]) == 1:
        return True
    word = piece.strip()
    named = re.match(r"\w+:\S|[\w.-]+-\d+x\d+(\+|$)", word) or word.partition("+")[0] in registry.names("protocol")
    return bool(word) and not named


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
