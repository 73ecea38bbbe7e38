"""A worker of the local pool: runs come in on stdin, what becomes of them goes out on stdout, a JSON object a line.

    in:   {"data": FOLDER or null, "cache": FOLDER or null, "threads": N or null}     once, at the start
          {"run": ...}                                                 one at a time
          {}                                                           no more
    out:  {"moment": ...}                                              progress (bench/runs/moments.py)
          {"status": ..., "reason": ..., "scope": ...}                 how it ended
          {"errno": ..., "reason": ..., "file": ...}                   what stops every run: a full disk

When stdin ends without {}, whoever has started the worker is gone, and it stops as after Ctrl-C.
"""

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from bench.images.dataset import Folders
from bench.images.folders import chosen
from bench.runs import launch
from bench.runs.run import Run
from bench.system.library_warnings import left_to_their_authors


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(messages,), daemon=True).start()
    place = messages.get()
    folders = chosen(*(Path(place[name]) if place[name] else None for name in ("data", "cache")))
    with launch.limited_threads(place["threads"]), left_to_their_authors():
        while message := messages.get():
            _answer(answers, _carry_out(Run.from_json(message["run"]), folders, answers))


def _carry_out(run: Run, folders: Folders, answers: TextIO) -> dict[str, Any]:
    try:
        outcome = launch.carry_out(run, folders, lambda _, moment: _answer(answers, {"moment": moment.to_json()}))
    except OSError as error:
        return {"errno": error.errno, "reason": error.strerror or str(error), "file": error.filename}
    return {"status": outcome.status, "reason": outcome.reason, "scope": outcome.scope}


def _answer(answers: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=answers, flush=True)


def _listen(messages: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        messages.put(message)
        if not message:
            return
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
