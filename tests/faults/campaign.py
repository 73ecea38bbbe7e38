"""Random faults while one command is repeated: whatever happens, the files at the end are those of an undisturbed command.

    python -m tests.faults.campaign --faults 100 --write docs/reliability.md

A round begins in an empty results folder (and, every third time, an empty feature store). One to three faults happen to
the command; then it is issued once more, undisturbed, and has to end with exit code 0 and the same files, byte for byte.
After every fault the runs that are finished must be whole already, and the command must have ended in order: killed, or with
an exit code and without a traceback. Needs root (mounts) for the full disk and the read-only directory, else it uses the
stand-ins that tests/faults/faults.py describes.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench.checks import features, results
from bench.checks.diagnosis import Diagnosis
from tests.faults.faults import Fault, all_faults
from tests.faults.scene import COMMAND, Ended, Scene, small_disk

BEGIN, END = "<!-- campaign: written by python -m tests.faults.campaign -->\n", "<!-- end of campaign -->"
ORDERLY = (0, 1, 2, 130)  # exit codes


@dataclass
class Tally:
    """What happened, by fault."""

    ends: dict[str, Counter] = field(default_factory=dict)
    rounds: int = 0
    files: int = 0  # compared at the end of rounds
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def faults(self) -> int:
        return sum(sum(ends.values()) for ends in self.ends.values())

    def note(self, fault: Fault, ended: list[Ended]) -> None:
        self.ends.setdefault(_name(fault), Counter())[" and ".join(sorted(one.words for one in ended))] += 1

    def markdown(self) -> str:
        lines = ["| fault | times | how the command ended |", "| :--- | ---: | :--- |"]
        for name, ends in self.ends.items():
            said = ", ".join(f"{words} ({count})" for words, count in ends.most_common())
            lines.append(f"| {name} | {sum(ends.values())} | {said} |")
        wrong = f"{len(self.wrong)} were not as they should be" if self.wrong else "all equal those of an undisturbed command"
        lines += [
            "",
            f"{self.faults} faults in {self.rounds} rounds, {self.seconds / 60:.0f} minutes. "
            f"Files of the command issued once more: {self.files} compared, {wrong}.",
        ]
        return "\n".join([*lines, *(f"- {line}" for line in self.wrong)])


def _name(fault: Fault) -> str:
    return " ".join(fault.__doc__.split())


class Campaign:
    """Rounds of faults on one disk."""

    def __init__(self, disk: Path, seed: int):
        self.scene = Scene(disk, random.Random(seed))
        self.tally = Tally()
        self.undisturbed: dict[str, bytes] = {}
        self.deck: list[Fault] = []

    def prepare(self) -> None:
        """What an undisturbed command leaves, and how long its runs take."""
        self._complete("before the faults")  # draws the images and encodes them
        shutil.rmtree(self.scene.results)
        process = self.scene.start()
        self.scene.wait_for(process, lambda: any((self.scene.results / ".locks").glob("*.holder")))
        began = time.monotonic()
        self.scene.end(process)
        self.scene.work = time.monotonic() - began
        self.undisturbed = self.scene.finished()
        if not self.undisturbed or self.tally.wrong:
            raise SystemExit(f"the undisturbed command fails: {self.tally.wrong}")

    def run(self, faults: int) -> Tally:
        began = time.monotonic()
        self.prepare()
        while self.tally.faults < faults:
            self._round(min(self.scene.draws.randint(1, 3), faults - self.tally.faults))
        self.tally.seconds = time.monotonic() - began
        return self.tally

    def _round(self, faults: int) -> None:
        self.tally.rounds += 1
        shutil.rmtree(self.scene.results, ignore_errors=True)
        if self.tally.rounds % 3 == 0:
            shutil.rmtree(self.scene.features)
        happened = []
        while len(happened) < faults and len(self.scene.finished()) < len(self.undisturbed):
            fault = self._draw()
            ended = fault(self.scene)
            if ended is None:
                continue
            happened.append(_name(fault))
            self.tally.note(fault, ended)
            self._after_a_fault(happened[-1], ended)
            print(f"{self.tally.faults:4} {happened[-1]}: {', '.join(one.words for one in ended)}", file=sys.stderr, flush=True)
        self._complete(" + ".join(happened))

    def _draw(self) -> Fault:
        """Every fault about equally often."""
        if not self.deck:
            self.deck = all_faults()
            self.scene.draws.shuffle(self.deck)
        return self.deck.pop()

    def _after_a_fault(self, what: str, ended: list[Ended]) -> None:
        for one in ended:
            if (one.code > 0 and one.code not in ORDERLY) or "Traceback" in one.stderr:
                self._complain(f"{what}: {one.words}, {one.stderr.strip()[-2000:]}")
        for place, content in self.scene.finished().items():
            if content != self.undisturbed[place]:
                self._complain(f"{what}: {place} differs")

    def _complete(self, what: str) -> None:
        """The same command once more, undisturbed."""
        ended = self.scene.carry_out()
        if ended.code:
            self._complain(f"after {what}: the command ends with {ended.words}: {ended.stderr.strip()[-2000:]}")
        if not self.undisturbed:
            return
        found = self.scene.finished()
        self.tally.files += len(self.undisturbed)
        for place, content in self.undisturbed.items():
            if found.get(place) != content:
                self._complain(f"after {what}: {place} {'differs' if place in found else 'is missing'}")
        diagnosis = Diagnosis()
        results.examine(self.scene.results, diagnosis)
        if diagnosis.wrong:
            self._complain(f"after {what}: bench doctor: {'; '.join(diagnosis.lines)}")
        store = Diagnosis(repair=True)  # an entry that was spoiled after it was last used is still spoiled
        features.examine(self.scene.features, store)
        if store.wrong:
            self._complain(f"after {what}: bench doctor --repair: {'; '.join(store.lines)}")

    def _complain(self, line: str) -> None:
        self.tally.wrong.append(" ".join(line.split()))
        print(f"WRONG {line}", file=sys.stderr, flush=True)


def carry_out(faults: int, seed: int, folder: Path) -> Tally:
    """A campaign in a folder that is empty or not there."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with small_disk(folder):
        campaign = Campaign(folder, seed)
        try:
            return campaign.run(faults)
        finally:
            campaign.scene.close()


def write(page: Path, tally: Tally) -> None:
    """Put the counts between the two marks of a page."""
    text = page.read_text()
    block = f"{BEGIN}Command: `bench {' '.join(COMMAND)}`\n\n{tally.markdown()}\n{END}"
    page.write_text(re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: block, text, flags=re.DOTALL))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the counts into this page")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is mounted is unmounted
    with tempfile.TemporaryDirectory() as folder:
        tally = carry_out(arguments.faults, arguments.seed, Path(folder) / "disk")
    print(tally.markdown())
    if arguments.write:
        write(arguments.write, tally)
    sys.exit(1 if tally.wrong else 0)


if __name__ == "__main__":
    main()
