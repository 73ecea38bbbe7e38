"""Images inside parquet files, as data sets lie on the Hugging Face hub: a column of encoded images, one of labels."""

import functools
import hashlib
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from bench.images.dataset import Copy
from bench.images.decoding import DECODING, decode
from bench.images.digests import FileDigests
from bench.images.files import digest_if_of_shape
from bench.images.sources import READ_AT_ONCE, ImageSource, out_of_range, out_of_range_in_words
from bench.system.parallel import in_parallel

OTHER = -1  # stands for a class that is none of the data set's
GROUPS_KEPT = 4  # row groups whose encoded images are held in memory; a group has some hundred rows
SHARD = re.compile(r"-(\d+)-of-(\d+)")


def parquet_images(
    copy: Copy,
    pattern: str,
    image_columns: Sequence[str] = ("image", "img"),
    label_columns: Sequence[str] = ("label",),
    classes: Sequence[str] | None = None,
    listed: Sequence[str] | None = None,
    trust_names: bool = True,
) -> ImageSource:
    """The images of the parquet files in a copy's folder that match the pattern, shard after shard.

    The first of the columns that a file has is taken. The files' labels are the data set's, unless `classes` is given:
    then it says how the data set's labels 0..K-1 are called in the files, and how the files' own labels are called is
    taken from the files, which on the hub say so, or else from `listed` [as `classes`]. With `trust_names` False only
    `listed` counts, and images of classes that are not among the data set's are left out.
    """
    files = _whole_set(copy, pattern)
    tables = [_Table(copy, path, image_columns, label_columns) for path in files]
    if classes is None:
        labels = [copy.labels(table.values, table.path) for table in tables]
    else:
        labels = [_by_name(copy, table, classes, listed, trust_names) for table in tables]
    found = np.concatenate(labels)
    kept = np.flatnonzero(found != OTHER)
    return ParquetImages(copy, tables, found[kept], kept)


class ParquetImages(ImageSource):
    """The rows of several parquet files; images are read a row group at a time."""

    def __init__(self, copy: Copy, tables: Sequence["_Table"], labels: np.ndarray, rows: np.ndarray):
        super().__init__(labels, self._decode, self._digest_of_files)
        self.copy, self.tables, self.rows = copy, list(tables), rows  # rows: among all rows of the tables
        self.starts = np.cumsum([0] + [len(table.values) for table in tables])

    hashes_pixels = False
    decoding = DECODING

    def select(self, rows: np.ndarray) -> "ParquetImages":
        return ParquetImages(self.copy, self.tables, self.labels[rows], self.rows[rows])

    def image_digests(self, rows: np.ndarray) -> list[str]:
        return [hashlib.sha256(encoded).hexdigest() for encoded, _ in self._encoded(rows)]

    def pixel_digests(self, rows: np.ndarray, shapes: Collection[tuple[int, ...]]) -> list[str | None]:
        found: list[str | None] = []
        for start in range(0, len(rows), READ_AT_ONCE):
            encoded = self._encoded(rows[start : start + READ_AT_ONCE])
            found += in_parallel(lambda item: digest_if_of_shape(item[0], shapes), encoded)
        return found

    def _digest_of_files(self) -> str:
        """Of the files that hold the rows, and of which rows they are."""
        wanted = [self.tables[k].path for k in np.unique(np.searchsorted(self.starts, self.rows, side="right") - 1)]
        digests = FileDigests(self.copy.folder, self.copy.cache).of([path.name for path in wanted])
        return hashlib.sha256("".join(digests).encode() + self.rows.tobytes() + self.labels.tobytes()).hexdigest()

    def _encoded(self, rows: np.ndarray) -> list[tuple[bytes, str]]:
        """Each image's file content, and how to name it in an error."""
        found = []
        for row in self.rows[np.asarray(rows)]:
            table = int(np.searchsorted(self.starts, row, side="right")) - 1
            within = int(row - self.starts[table])
            found.append((self.tables[table].encoded(within), f"{self.tables[table].path}: image {within}"))
        return found

    def _decode(self, rows: np.ndarray) -> list[np.ndarray]:
        return in_parallel(self._decode_one, self._encoded(rows))

    def _decode_one(self, item: tuple[bytes, str]) -> np.ndarray:
        encoded, where = item
        try:
            return decode(encoded)
        except ValueError as error:
            raise self.copy.damaged(Path(where), f"not a whole image ({error})") from error


class _Table:
    """One parquet file: its labels, and its images when they are asked for."""

    def __init__(self, copy: Copy, path: Path, image_columns: Sequence[str], label_columns: Sequence[str]):
        import pyarrow.parquet

        self.copy, self.path = copy, path
        with copy.reading(path):
            self.file = pyarrow.parquet.ParquetFile(path)
            self.column, label_column = self._one_of(image_columns), self._one_of(label_columns)
            self.values = self.file.read(columns=[label_column]).column(0).to_numpy().astype(np.int64)
            sizes = [self.file.metadata.row_group(k).num_rows for k in range(self.file.num_row_groups)]
        self.names = self._names(label_column)
        self.starts = np.cumsum([0, *sizes])
        self._group = functools.lru_cache(maxsize=GROUPS_KEPT)(self._read_group)

    def _one_of(self, columns: Sequence[str]) -> str:
        there = self.file.schema_arrow.names
        for column in columns:
            if column in there:
                return column
        raise self.copy.damaged(self.path, f"no column {' or '.join(columns)} (it has {', '.join(there)})")

    def _names(self, label_column: str) -> list[str]:
        """How the file says that its labels are called."""
        try:
            note = json.loads((self.file.schema_arrow.metadata or {})[b"huggingface"])
            return list(note["info"]["features"][label_column]["names"])
        except (KeyError, TypeError, ValueError):
            return []

    def encoded(self, row: int) -> bytes:
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self._group(group)[row - int(self.starts[group])]

    def _read_group(self, group: int) -> list[bytes]:
        with self.copy.reading(self.path):
            cells = self.file.read_row_group(group, columns=[self.column]).column(0).to_pylist()
            return [cell["bytes"] if isinstance(cell, dict) else cell for cell in cells]


def _by_name(
    copy: Copy, table: _Table, classes: Sequence[str], listed: Sequence[str] | None, trust_names: bool
) -> np.ndarray:
    """(n,) the data set's labels of a file's images, OTHER where the class is none of its."""
    names = (table.names if trust_names else []) or list(listed or classes)
    position = {_plain(name): label for label, name in enumerate(classes)}
    translation = np.array([position.get(_plain(name), OTHER) for name in names])
    if trust_names and (translation == OTHER).any():
        stranger = names[int(np.flatnonzero(translation == OTHER)[0])]
        raise copy.damaged(table.path, f"it has a class {stranger!r}, which is none of the {len(classes)} classes")
    bad = out_of_range(table.values, len(names))
    if len(bad):
        raise copy.damaged(table.path, out_of_range_in_words(table.values[bad[0]], f"image {bad[0]}", len(names)))
    return translation[table.values]


def _plain(name: str) -> str:
    """A class name without what copies spell differently: capitals, spaces, underscores, hyphens, slashes.

    >>> _plain("Ram C/V Cargo Van Minivan 2012") == _plain("ram C-V_Cargo Van Minivan 2012")
    True
    """
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _whole_set(copy: Copy, pattern: str) -> list[Path]:
    """The files of a pattern; their names ("-00001-of-00004") tell whether one is missing."""
    files = sorted(copy.folder.glob(pattern))
    numbers = [match for path in files if (match := SHARD.search(path.name))]
    for count in {match[2] for match in numbers}:
        there = {int(match[1]) for match in numbers if match[2] == count}
        if missing := set(range(int(count))) - there:
            raise copy.damaged(copy.folder, f"{pattern}: part {min(missing)} of {int(count)} is missing")
    return files
