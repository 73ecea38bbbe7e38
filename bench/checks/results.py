"""The part of `bench doctor` that reads a results folder: are finished runs whole, what became of the others?"""

import json
import os
from pathlib import Path

from bench.checks.diagnosis import Diagnosis
from bench.errors import BenchError
from bench.results.run_folder import NAMES, RunFolder
from bench.results.soundness import damages
from bench.runs import checkpoint, kept_model
from bench.system import claims
from bench.system.files import leftovers
from bench.system.progress import followed

SHOWN = 10  # orphan files that are named


def examine(results: Path, diagnosis: Diagnosis) -> None:
    diagnosis.section("results")
    if not results.exists():
        diagnosis.note(f"{results}: not there yet; bench run writes results")
        return
    counts = {"finished": 0, "unfinished": 0, "failed": 0, "running": 0}
    folders, orphans = _sorted_out(results)
    for folder in followed(folders, "runs", len(folders)):
        state = _run(results, RunFolder(folder), diagnosis)
        counts[state] = counts.get(state, 0) + 1
    if orphans:
        more = f" and {len(orphans) - SHOWN} more" if len(orphans) > SHOWN else ""
        diagnosis.note(f"{len(orphans)} files belong to no run: {', '.join(map(str, orphans[:SHOWN]))}{more}")
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    diagnosis.fine(f"{results}: {said or 'no runs'}; checksums of finished runs compared")


def _sorted_out(results: Path) -> tuple[list[Path], list[Path]]:
    """The folders of runs (results/protocol/method/run id), and files that lie in none of them. Hidden folders, and those
    of launchers, are not looked into."""
    folders, orphans = [], []
    for folder, below, files in os.walk(results):
        place = Path(folder)
        depth = len(place.relative_to(results).parts)
        below[:] = sorted(name for name in below if not name.startswith("."))
        if depth == 3 and (NAMES & set(files) or leftovers(place) or not (files or below)):
            folders.append(place)
            orphans += [place / name for name in files if name not in NAMES and not name.endswith(".tmp")]
        else:
            orphans += [place / name for name in files if not name.startswith(".")]
    return sorted(folders), sorted(orphans)


def _run(results: Path, run: RunFolder, diagnosis: Diagnosis) -> str:
    """One run: "finished", "unfinished", "failed" or "running"."""
    name = run.path.relative_to(results)
    try:
        claim = claims.Claim(run.lock) if run.lock.exists() else None
    except claims.Held as held:
        diagnosis.note(f"{name}: running now ({held}), not looked at")
        return "running"
    except OSError:
        claim = None  # a folder that can only be read
    try:
        return _run_at_rest(run, str(name), diagnosis)
    finally:
        if claim:
            claim.release()


def _run_at_rest(run: RunFolder, name: str, diagnosis: Diagnosis) -> str:
    for path in leftovers(run.path):
        diagnosis.mend(f"{name}: {path.name} was left by a writer that was killed", "removed", path.unlink)
    if run.finished:
        complaint = next(damages(run), None)
        if run.model.exists():
            _look_at_model(run, name, diagnosis)
        if complaint is None:
            for leftover in (run.checkpoint, run.failure, run.traceback, run.damaged_manifest):
                if leftover.exists():
                    diagnosis.mend(f"{name}: {leftover.name} is left of a run that has finished", "removed", leftover.unlink)
            return "finished"
        diagnosis.mend(
            f"{name}: {complaint}", "set aside, the command that made it makes it again",
            lambda: os.replace(run.manifest, run.damaged_manifest),
        )  # fmt: skip
        return "unfinished"
    return _unfinished(run, name, diagnosis)


def _look_at_model(run: RunFolder, name: str, diagnosis: Diagnosis) -> None:
    try:
        kept_model.check(run.model)
    except BenchError as error:
        diagnosis.mend(f"{name}: {error}", "removed, bench run --keep-model makes it again", run.model.unlink)


def _unfinished(run: RunFolder, name: str, diagnosis: Diagnosis) -> str:
    path = run.checkpoint
    kept = "it starts over"
    if path.exists():
        try:
            journal, run_id, _ = checkpoint.from_bytes(path.read_bytes())
            if run_id != run.run_id:
                raise checkpoint.Damaged("it belongs to another run")
            kept = f"{journal.finished_tasks} tasks are kept"
        except (checkpoint.Damaged, OSError) as error:
            diagnosis.mend(f"{name}: the checkpoint is damaged ({error})", "removed, the run starts over", path.unlink)
    if run.failure.exists():
        try:
            reason = json.loads(run.failure.read_text())["reason"]
        except (OSError, ValueError, KeyError, TypeError):
            diagnosis.mend(f"{name}: {run.failure.name} cannot be read", "removed", run.failure.unlink)
        else:
            diagnosis.note(f"{name}: failed ({' '.join(str(reason).split())}), {kept}")
            return "failed"
    if not any(run.path.iterdir()):
        diagnosis.mend(f"{name}: an empty folder", "removed", run.path.rmdir)
    else:
        diagnosis.note(f"{name}: unfinished, {kept}; the command that began it goes on")
    return "unfinished"
