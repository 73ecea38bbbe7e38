"""One of the processes that carry out a run together, begun by bench/runs/several_processes.py.

    in:   {"run": ..., "place": K, "store": FILE, "seconds": S, "data": FOLDER, "cache": FOLDER, "threads": N}
    out:  {"moment": ...}                                                    progress, from the first one
          {"status": ..., "reason": ..., "scope": ..., "failure": ...}       how it ended; "lost": it cannot go on alone
          {"errno": ..., "reason": ..., "file": ...}                         what stops every run: a full disk

When stdin ends, whoever has started it is gone or wants no more of it, and it stops as after Ctrl-C; if it waits for another
process at that moment, and hears no signal, it is ended a little later.
"""

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from bench.errors import one_line
from bench.images.folders import chosen
from bench.runs import launch
from bench.runs.run import Run
from bench.system.library_warnings import left_to_their_authors
from bench.system.processes import Joined, LostProcesses, Processes

PATIENCE = 30.0  # seconds for the write in progress


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    told = json.loads(sys.stdin.readline())
    threading.Thread(target=_listen, daemon=True).start()
    with launch.limited_threads(told["threads"]), left_to_their_authors():
        _answer(answers, _carry_out(told, answers))
        os._exit(0)  # without waiting for the libraries' farewells to processes that may be gone


def _carry_out(told: dict[str, Any], answers: TextIO) -> dict[str, Any]:
    run = Run.from_json(told["run"])
    folders = chosen(*(Path(told[name]) if told[name] else None for name in ("data", "cache")))

    def joined() -> Processes:
        return Joined(told["place"], run.processes, Path(told["store"]), run.device, told["seconds"])

    def report(_: Run, moment: launch.Moment) -> None:
        if told["place"] == 0:
            _answer(answers, {"moment": moment.to_json()})

    try:
        outcome = launch.carry_out_part(run, folders, report, joined)
    except LostProcesses as error:
        return {"status": "lost", "reason": one_line(error), "scope": "run", "failure": None}
    except OSError as error:
        return {"errno": error.errno, "reason": error.strerror or str(error), "file": error.filename}
    failure = dataclasses.asdict(outcome.failure) if outcome.failure else None
    return {"status": outcome.status, "reason": outcome.reason, "scope": outcome.scope, "failure": failure}


def _answer(answers: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=answers, flush=True)


def _listen() -> None:
    for _ in sys.stdin:
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(PATIENCE)
    os._exit(130)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
