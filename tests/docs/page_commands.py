"""The commands in a page of documentation, taken out of it and run as a reader would run them.

A block of commands (fenced, or indented by four spaces) says in a comment above it what becomes of it in the tests:

    <!-- tested -->                                   each command is run and must exit with 0
    <!-- tested: exit 1 -->                           ... with 1
    <!-- tested: with --limit-train 3 -->             these options are appended to each `bench run` and `bench profile`
    <!-- not tested: needs a GPU -->                  not run, for this reason
    <!-- file: study.toml -->                         no commands: the block is written to that file
    <!-- before: bench run ... -->                    a command that the page does not show
    <!-- slow page -->                                somewhere in the page: running it takes more than about 20 seconds

The commands of a page run in order, in one folder that is empty at the start.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests import forked_bench

ROOT = Path(__file__).parent.parent.parent
COMMAND = re.compile(r"(\w+=\S* +)*(bench|pip|python|pytest|make|source)(?= |$)(?! *[=:])")
MARKER = re.compile(r"<!-- (?P<word>tested|not tested|file|before|slow page)(: *(?P<rest>.+?))? -->")
GENERATED = re.compile(r"<!-- output: .+? -->\n.*?<!-- end -->\n", re.DOTALL)  # written by docs/regenerate.py
TIMEOUT = 900

PROGRAMS = {  # as they are found on the reader's path; -P: the current folder is not on the import path of a program
    "bench": 'exec "{python}" -P -m bench "$@"',
    "python": 'exec "{python}" "$@"',
    "pytest": 'exec "{python}" -P -m pytest -p no:cacheprovider "$@"',
    # a folder is installed apart from this environment; what is asked for by name has to be there already
    "pip": (
        'case "$*" in *[./]*) set -- "$@" --no-deps --no-build-isolation --target "{site}";; esac\n'
        'exec "{python}" -m pip "$@" --no-index'
    ),
}
FORKED = 'exec "{python}" -S -P "{forked}" "{address}" "$@"'  # the same, from a process that has imported everything


class PageError(Exception):
    """Something is wrong with a page."""


@dataclass(frozen=True)
class Block:
    """A block of code with the marker above it."""

    line: int  # where it starts in the page
    text: str
    word: str = ""  # of the marker; "" if it has none
    rest: str = ""

    @property
    def commands(self) -> list[str]:
        """Whole commands: continued lines joined, comments removed."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]

    @property
    def has_commands(self) -> bool:
        return any(COMMAND.match(line.strip()) for line in self.text.splitlines())


def is_slow(page: str) -> bool:
    return "<!-- slow page -->" in page


def blocks(page: str) -> list[Block]:
    """Every block of a page and every hidden command, in order; PageError for a marker that speaks of nothing."""
    # what is generated has no marker; its lines are emptied, so that line numbers stay
    lines = GENERATED.sub(lambda match: "\n" * match[0].count("\n"), page).splitlines()
    found, pending, position = [], None, 0
    while position < len(lines):
        line = lines[position]
        marker = MARKER.fullmatch(line.strip())
        if marker and marker["word"] == "before":
            found.append(Block(position + 1, marker["rest"] or "", "before"))
            position += 1
        elif marker and marker["word"] != "slow page":
            if pending:
                raise PageError(f"line {pending[0]}: two markers in a row")
            pending = (position + 1, marker["word"], marker["rest"] or "")
            position += 1
        elif line.startswith(("```", "    ")):
            end, text = _fenced(lines, position) if line.startswith("```") else _indented(lines, position)
            found.append(Block(position + 1, text, *(pending[1:] if pending else ())))
            pending, position = None, end
        elif pending and line.strip() and not marker:
            raise PageError(f"line {pending[0]}: no block follows this marker")
        else:
            position += 1
    if pending:
        raise PageError(f"line {pending[0]}: no block follows this marker")
    return found


def _fenced(lines: list[str], start: int) -> tuple[int, str]:
    end = next((k for k in range(start + 1, len(lines)) if lines[k].startswith("```")), None)
    if end is None:
        raise PageError(f"line {start + 1}: the fence is never closed")
    return end + 1, "\n".join(lines[start + 1 : end]) + "\n"


def _indented(lines: list[str], start: int) -> tuple[int, str]:
    end = start
    while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
        end += 1
    while not lines[end - 1].strip():
        end -= 1
    return end, "\n".join(line[4:] for line in lines[start:end]) + "\n"


def complaints(page: str) -> list[str]:
    """What keeps the commands of a page from being either tested or visibly left out."""
    found = []
    try:
        for block in blocks(page):
            if block.has_commands and not block.word:
                found.append(f"line {block.line}: commands without a marker")
            if block.word == "tested" and not block.commands:
                found.append(f"line {block.line}: nothing to test")
            if block.word in ("not tested", "file", "before") and not (block.rest or block.word == "before"):
                found.append(f"line {block.line}: the marker lacks its reason or name")
    except PageError as error:
        found.append(str(error))
    return found


class Reader:
    """Somebody who does what a page says, in a folder of their own."""

    def __init__(self, folder: Path, cache: Path, forked: forked_bench.ForkedBench | None = None):
        self.here = folder / "here"
        self.here.mkdir()
        programs, site = folder / "programs", folder / "site"
        programs.mkdir()
        places = {"python": sys.executable, "site": site}
        scripts = dict(PROGRAMS)
        if forked and forked_bench.USABLE:
            scripts["bench"] = FORKED
            places |= {"forked": forked_bench.__file__, "address": forked.address}
        for name, script in scripts.items():
            path = programs / name
            path.write_text(f"#!/bin/sh\n{script.format(**places)}\n")
            path.chmod(0o755)
        self.environment = os.environ | {
            "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
            "BENCH_CACHE": str(cache),
            "BENCH_DATA": str(folder / "data"),
            "BENCH_OFFLINE": "1",
            "COLUMNS": "120",
        }

    def follow(self, page: str) -> int:
        """Do it all; how many commands were run. AssertionError, with the output, at the first wrong exit code."""
        done = 0
        for block in blocks(page):
            if block.word == "file":
                path = self.here / block.rest
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            elif block.word in ("tested", "before"):
                expected, options = _how(block)
                for command in block.commands:
                    takes_options = re.match(r"bench (run|profile)\b", command)
                    self.run(f"{command} {options}".rstrip() if takes_options else command, expected, block.line)
                    done += 1
        return done

    def run(self, command: str, expected: int, line: int) -> None:
        found = subprocess.run(
            ["bash", "-c", command], cwd=self.here, env=self.environment, timeout=TIMEOUT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert found.returncode == expected, f"line {line}: {command}\nexit code {found.returncode}\n{found.stdout}"


def _how(block: Block) -> tuple[int, str]:
    """(expected exit code, options to append)"""
    parts = re.fullmatch(r"(exit (?P<code>\d+))? *(with (?P<options>.+))?", block.rest)
    if parts is None:
        raise PageError(f"line {block.line}: {block.rest!r} is neither `exit N` nor `with OPTIONS`")
    return int(parts["code"] or 0), parts["options"] or ""
