"""Embeddings of new images in a file: an array (n, d), FILE.npy, or the test images of a file of embeddings (embeddings.py)."""

from pathlib import Path

import numpy as np

from bench.errors import BenchError, one_line
from bench.images.embeddings import opened

ENDINGS = (".npy", ".safetensors")


def is_meant(path: str | Path) -> bool:
    """Has it the name of such a file?"""
    return Path(path).suffix.lower() in ENDINGS


def rows_of(path: str | Path, which: str) -> np.ndarray:
    """The embeddings in a file, "features" or "pooled" ones; BenchError in one line for a file that has none."""
    place = Path(path).expanduser()
    if not is_meant(place):
        either = " or ".join(f"FILE{ending}" for ending in ENDINGS)
        raise BenchError(f"{place}: the model was trained on embeddings and cannot encode images; give {either}")
    if not place.is_file():
        raise BenchError(f"{place}: no such file")
    try:
        return _array(place) if place.suffix.lower() == ".npy" else _tensor(place, which)
    except OSError as error:
        raise BenchError(f"{place}: cannot be read ({one_line(error)})") from error


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BenchError(f"{path}: no array as numpy.save writes one ({one_line(error)})") from error


def _tensor(path: Path, which: str) -> np.ndarray:
    wanted = (which, f"test/{which}")
    with opened(path) as file:
        names = set(file.keys())
        name = next((name for name in wanted if name in names), None)
        if name is None:
            raise BenchError(f"{path}: has no tensor {' or '.join(wanted)}")
        return file.get_tensor(name)
