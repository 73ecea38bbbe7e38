"""A process with torch beside one that has none: a question a line in, an answer a line out.

    in:   ["OfMethod", {"method": "coop"}]      a question of bench/runs/questions.py
    out:  {"answer": {...}}                     or {"error": TEXT}, one line that says what the user can mend

What else it prints goes to stderr.
"""

import json
import subprocess
import sys
from typing import IO

from bench.errors import BenchError
from bench.runs import questions
from bench.runs.questions import Answer, Question
from bench.system.library_warnings import left_to_their_authors


class Helper:
    """The process, seen from the one that asks. It begins with the first question."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: Question) -> Answer:
        ended = "the process that asks methods for their settings has ended; its last lines are above"
        try:
            told, heard = self._pipes()
            print(question.to_json(), file=told, flush=True)
            found = json.loads(heard.readline())
        except (OSError, ValueError) as error:
            raise BenchError(ended) from error
        if "error" in found:
            raise BenchError(found["error"])
        return found["answer"]

    def close(self) -> None:
        if self._process:
            self._process.communicate()  # closes its stdin, at which it ends

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.runs.helper"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdin and self._process.stdout  # pipes were asked for
        return self._process.stdin, self._process.stdout


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    with left_to_their_authors():
        for line in sys.stdin:
            print(json.dumps(_answered(line)), file=answers, flush=True)


def _answered(question: str) -> dict[str, Answer | str]:
    try:
        return {"answer": questions.from_json(question).answer()}
    except BenchError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    main()
