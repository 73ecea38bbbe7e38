"""The part of `bench doctor` that reads a results folder: are finished runs whole, what became of the others?"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from bench.checks.diagnosis import Diagnosis
from bench.errors import BenchError, one_line
from bench.results import records
from bench.runs import checkpoint, failures
from bench.system import claims
from bench.system.files import file_digest, leftovers

MANIFEST = "manifest.json"
SET_ASIDE = "manifest.damaged.json"  # a manifest whose results are not whole: the run counts as unfinished
FILES = {"records.csv", "samples.safetensors", MANIFEST, SET_ASIDE, "checkpoint.safetensors", failures.FILE}
SHOWN = 10  # orphan files that are named


def examine(results: Path, diagnosis: Diagnosis) -> None:
    diagnosis.section("results")
    if not results.exists():
        diagnosis.note(f"{results}: not there yet; bench run writes results")
        return
    counts = {"finished": 0, "unfinished": 0, "failed": 0, "running": 0}
    folders, orphans = _sorted_out(results)
    for folder in folders:
        state = _run(results, folder, diagnosis)
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
        if depth == 3 and (FILES & set(files) or leftovers(place) or not (files or below)):
            folders.append(place)
            orphans += [place / name for name in files if name not in FILES and not name.endswith(".tmp")]
        else:
            orphans += [place / name for name in files if not name.startswith(".")]
    return sorted(folders), sorted(orphans)


def _run(results: Path, folder: Path, diagnosis: Diagnosis) -> str:
    """One run: "finished", "unfinished", "failed" or "running"."""
    name = folder.relative_to(results)
    lock = results / ".locks" / f"{folder.name}.lock"
    try:
        claim = claims.Claim(lock) if lock.exists() else None
    except claims.Held as held:
        diagnosis.note(f"{name}: running now ({held}), not looked at")
        return "running"
    except OSError:
        claim = None  # a folder that can only be read
    try:
        return _run_at_rest(folder, str(name), diagnosis)
    finally:
        if claim:
            claim.release()


def _run_at_rest(folder: Path, name: str, diagnosis: Diagnosis) -> str:
    for path in leftovers(folder):
        diagnosis.mend(f"{name}: {path.name} was left by a writer that was killed", "removed", path.unlink)
    if (folder / MANIFEST).exists():
        complaint = next(_damages(folder), None)
        if complaint is None:
            for leftover in ("checkpoint.safetensors", failures.FILE, SET_ASIDE):
                if (folder / leftover).exists():
                    diagnosis.mend(
                        f"{name}: {leftover} is left of a run that has finished", "removed", (folder / leftover).unlink
                    )
            return "finished"
        diagnosis.mend(
            f"{name}: {complaint}", "set aside, the command that made it makes it again",
            lambda: os.replace(folder / MANIFEST, folder / SET_ASIDE),
        )  # fmt: skip
        return "unfinished"
    return _unfinished(folder, name, diagnosis)


def _unfinished(folder: Path, name: str, diagnosis: Diagnosis) -> str:
    path = folder / "checkpoint.safetensors"
    kept = "it starts over"
    if path.exists():
        try:
            journal, run_id, _ = checkpoint.from_bytes(path.read_bytes())
            if run_id != folder.name:
                raise checkpoint.Damaged("it belongs to another run")
            kept = f"{journal.finished_tasks} tasks are kept"
        except (checkpoint.Damaged, OSError) as error:
            diagnosis.mend(f"{name}: the checkpoint is damaged ({error})", "removed, the run starts over", path.unlink)
    if (folder / failures.FILE).exists():
        try:
            reason = json.loads((folder / failures.FILE).read_text())["reason"]
        except (OSError, ValueError, KeyError, TypeError):
            diagnosis.mend(f"{name}: {failures.FILE} cannot be read", "removed", (folder / failures.FILE).unlink)
        else:
            diagnosis.note(f"{name}: failed ({' '.join(str(reason).split())}), {kept}")
            return "failed"
    if not any(folder.iterdir()):
        diagnosis.mend(f"{name}: an empty folder", "removed", folder.rmdir)
    else:
        diagnosis.note(f"{name}: unfinished, {kept}; the command that began it goes on")
    return "unfinished"


def _damages(folder: Path) -> Iterator[str]:
    """What is wrong with a run that says it has finished."""
    try:
        manifest = records.read_manifest(folder)
        digest = hashlib.sha256(json.dumps(manifest["identity"], sort_keys=True).encode()).hexdigest()[:16]
        if not digest == manifest["run_id"] == folder.name:
            yield f"{MANIFEST} does not belong to this run"
        checksums = manifest["checksums"]
        for file in ("records.csv", "samples.safetensors"):
            path = folder / file
            if not path.is_file():
                yield f"{file} is missing"
            elif file_digest(path) != checksums[file]:
                yield f"{file} is damaged: its checksum differs"
        records.read_csv(folder / "records.csv")
    except BenchError as error:
        yield str(error)
    except (OSError, KeyError, TypeError, AttributeError) as error:
        yield f"{MANIFEST} is damaged ({type(error).__name__}: {one_line(error)})"
