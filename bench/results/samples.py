"""Per-sample scores of finished runs: the arrays beside records.csv, opened when a metric asks for them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from bench.errors import reading
from bench.results import records
from bench.results.run_folder import RunFolder


class Samples(Mapping[str, np.ndarray]):
    """The content of one samples.safetensors; an array is read from disk when it is looked up."""

    def __init__(self, path: Path):
        from safetensors import SafetensorError, safe_open

        with reading(path, errors=(SafetensorError, OSError), advice=records.RUN_AGAIN):
            self._file = safe_open(path, framework="numpy")
        self._names = frozenset(self._file.keys())

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)


SamplesOf = Callable[[str], Mapping[str, np.ndarray] | None]  # from a run id to its per-image arrays; None: they were not kept


def of_runs(paths: Iterable[Path]) -> SamplesOf:
    """Of the finished runs at or below the paths."""
    folders: dict[str, RunFolder] = {}
    for file in (file for path in paths for file in records.find(Path(path))):
        folder = RunFolder(file.parent)
        if folder.finished:
            folders[records.read_manifest(folder.path)["run_id"]] = folder

    def samples_of(run_id: str) -> Samples | None:
        folder = folders.get(run_id)
        return Samples(folder.samples) if folder and folder.samples.exists() else None

    return samples_of
