"""What has been handed on already, so that doing it again doubles nothing: run id -> digest of what was written for it.

The file lies in the folder of the export and is written after each run. A process that is killed in between leaves at most one
run that is written once more, in the place of its first half.
"""

import json
from pathlib import Path

from bench.errors import BenchError, reading
from bench.reports.export.content import RunContent
from bench.system.files import write_atomically


class Ledger:
    """Of one tool in one folder."""

    def __init__(self, folder: Path, tool: str):
        self.path = folder / f".bench-export-{tool}.json"
        self._known: dict[str, str] = {}
        if self.path.exists():
            with reading(self.path, errors=(OSError, ValueError), advice="remove it, or export into another folder"):
                found = json.loads(self.path.read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise BenchError(f"{self.path}: not what bench export has written; export into another folder")
            self._known = found

    def holds(self, run: RunContent) -> bool:
        """Has this run been written as it is now?"""
        return self._known.get(run.run_id) == run.digest

    def note(self, *runs: RunContent) -> None:
        """These have been written."""
        self._known |= {run.run_id: run.digest for run in runs}
        write_atomically(self.path, json.dumps(self._known, indent=1, sort_keys=True))
