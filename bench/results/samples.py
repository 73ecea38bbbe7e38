"""Per-sample scores of finished runs: the arrays beside records.csv, opened when a metric asks for them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from bench.errors import BenchError, one_line
from bench.results import records
from bench.results.run_folder import RunFolder


class Samples(Mapping[str, np.ndarray]):
    """The content of one samples.safetensors; an array is read from disk when it is looked up."""

    def __init__(self, path: Path):
        from safetensors import SafetensorError, safe_open

        try:
            self._file = safe_open(path, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise BenchError(f"{path}: cannot be read ({one_line(error)}); run again with --fresh") from error
        self._names = frozenset(self._file.keys())

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)


def of_runs(paths: Iterable[Path]) -> Callable[[str], Samples | None]:
    """A function from run id to its samples, for the finished runs at or below the paths; None where there are none."""
    folders: dict[str, RunFolder] = {}
    for file in (file for path in paths for file in records.find(Path(path))):
        folder = RunFolder(file.parent)
        if folder.finished:
            folders[records.read_manifest(folder.path)["run_id"]] = folder

    def samples_of(run_id: str) -> Samples | None:
        folder = folders.get(run_id)
        return Samples(folder.samples) if folder and folder.samples.exists() else None

    return samples_of
