"""The part of `bench doctor` that reads the feature store: is every entry whole?"""

import json
from pathlib import Path

import numpy as np

from bench.checks.diagnosis import Diagnosis
from bench.system import claims
from bench.system.files import file_digest, leftovers
from bench.system.progress import followed


def examine(store: Path, diagnosis: Diagnosis) -> None:
    diagnosis.section("feature store")
    if not store.exists():
        diagnosis.note(f"{store}: not there yet; images are encoded when a run needs them")
        return
    keys = {
        path.with_suffix("") for pattern in ("*.npy", "*.json") for path in store.glob(f"??/{pattern}") if path.name[0] != "."
    }
    whole, size = 0, 0
    for key in followed(sorted(keys), "entries of the feature store", len(keys)):
        if found := _entry(key, diagnosis):
            whole, size = whole + 1, size + found
    for folder in sorted(store.glob("??")):
        for path in leftovers(folder):
            _remove(
                folder / f"{path.name.split('.')[1]}.lock", f"{path.name} was left by a writer that was killed", [path], diagnosis
            )
    diagnosis.fine(f"{store}: {whole} entries are whole, {size / 1e6:.1f} MB; checksums compared")


def _entry(key: Path, diagnosis: Diagnosis) -> int:
    """Bytes of an entry that is whole, else 0."""
    array, sidecar, lock = (key.with_suffix(suffix) for suffix in (".npy", ".json", ".lock"))
    try:
        expected = json.loads(sidecar.read_text())["sha256"]
        if file_digest(array) != expected:
            raise ValueError("its checksum differs")
        np.load(array, mmap_mode="r", allow_pickle=False)
        return array.stat().st_size
    except FileNotFoundError as error:
        complaint = f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        complaint = str(error)
    _remove(lock, f"entry {key.name} is damaged ({complaint})", [array, sidecar], diagnosis)
    return 0


def _remove(lock: Path, complaint: str, files: list[Path], diagnosis: Diagnosis) -> None:
    """Unless somebody is writing the entry at this moment."""

    def remove() -> None:
        for file in files:
            file.unlink(missing_ok=True)

    try:
        claim = claims.Claim(lock)
    except claims.Held as held:
        diagnosis.note(f"entry {lock.stem} is being written now ({held})")
        return
    except OSError:
        diagnosis.complain(f"{complaint}; the store cannot be written here")
        return
    with claim:
        diagnosis.mend(complaint, "removed, it is encoded again when it is needed", remove)
