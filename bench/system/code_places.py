"""Where in somebody's code an exception came from: the line that its author can mend, not the library that it ended in."""

import traceback
from pathlib import Path

OURS = ("methods", "protocols")  # packages of plug-ins that ship here


def place_of(error: BaseException, target: str) -> str:
    """ "novel.py:42, in learn": the innermost line of a plug-in's code that an exception went through; empty if there is none.

    target: module:object of the plug-in; of its package a line counts before any other.
    """
    own = target.partition(":")[0].strip().partition(".")[0]
    frames = [(_package(frame.f_globals), frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    for packages in ((own,), OURS):
        for package, code, line in reversed(frames):
            if package in packages:
                return f"{_shown(code.co_filename)}:{line}, in {code.co_name}"
    return ""


def with_place(text: str, error: BaseException, target: str) -> str:
    """The text, with the place behind it in brackets."""
    place = place_of(error, target)
    return f"{text} ({place})" if place else text


def _package(names: dict) -> str:
    """The package, or single module, that a frame's code lies in."""
    return str(names.get("__name__") or "").partition(".")[0]


def _shown(file: str) -> str:
    """As short as it still leads there from where the command was given."""
    path = Path(file)
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file
