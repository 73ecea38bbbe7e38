"""A file of embeddings in the place of images: what has to be in it, and what is there.

    train/features (n, d) float32     train/labels (n,) whole numbers     image embeddings and their classes, 0..K-1
    test/features  (m, d) float32     test/labels  (m,)
    text/features  (K, templates, d) float32, if there is any             text embeddings of every prompt of every class
    train/pooled, test/pooled, image/projection, if there are any         before the projection (n, p), and it (p, d)

The metadata of the safetensors file say what they are of: class_names, backbone and weights always; templates and logit_scale
where there is text; dataset and normalised if they are known. A file is looked through as a whole before anything is computed
from it: a vector that is not a number would turn up as a wrong accuracy, not as an error. What identifies it is its content, for
the order in which safetensors writes metadata is not fixed.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError, one_line, printable
from bench.images.embedding_facts import Facts, facts_of
from bench.images.folders import Folders
from bench.images.sources import ImageSource, out_of_range, out_of_range_in_words
from bench.system.file_kinds import kind_of

SPLITS = ("train", "test")
INTEGERS = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")  # as safetensors calls them; larger ones are out of range
LAYERS = {"projected": "features", "pooled": "pooled"}  # as bench/streams/features.py calls them -> in the file
KNOWN = (
    *(f"{split}/{what}" for split in SPLITS for what in ("features", "labels", "pooled")), "text/features", "image/projection",
)  # fmt: skip
ROWS_AT_ONCE = 1 << 14
UNIT = 1e-3  # how far from 1 the length of a normalised vector may be
Stamp = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class EmbeddingFile:
    """A file whose content has been looked through. Its arrays are read when they are asked for."""

    path: Path
    facts: Facts
    digest: str  # of the content
    labels: dict[str, np.ndarray]  # split -> (n,) int64
    shapes: dict[str, tuple[int, ...]]  # of the tensors that are read
    stamp: Stamp
    not_read: tuple[str, ...] = ()  # names of other tensors
    _kept: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __contains__(self, tensor: str) -> bool:
        return tensor in self.shapes

    @property
    def width(self) -> int:
        return self.shapes["train/features"][1]

    def array(self, name: str) -> np.ndarray:
        """A tensor of the file; BenchError if the file has changed since it was looked through."""
        if name not in self._kept:
            with opened(self.path) as file:
                self._kept[name] = file.get_tensor(name)
            if _stamp(self.path) != self.stamp:
                raise BenchError(f"{self.path}: has changed since the command began; repeat it")
        return self._kept[name]

    def notes(self) -> list[str]:
        """What is in the file and has no meaning here."""
        others = ", ".join(map(printable, self.not_read[:5])) + (" ..." if len(self.not_read) > 5 else "")
        return [f"{self.path}: not read: {others}"] if others else []


class EmbeddedSource(ImageSource):
    """The images of a split, of which nothing but embeddings is there."""

    hashes_pixels = False

    def __init__(self, file: EmbeddingFile, split: str):
        digest = hashlib.sha256(f"{file.digest} {split}".encode()).hexdigest()
        super().__init__(file.labels[split], self._no_pixels, digest, in_memory=False)
        self.file, self.split = file, split

    def embedded(self, layer: str) -> np.ndarray:
        name = f"{self.split}/{LAYERS[layer]}"
        if name not in self.file:
            raise BenchError(f"{self.file.path}: has no {name}")
        return self.file.array(name)

    def image_digests(self, rows: np.ndarray) -> list[str]:
        features = self.embedded("projected")
        return [hashlib.sha256(features[row].tobytes()).hexdigest() for row in rows]

    def _no_pixels(self, rows: np.ndarray) -> Any:
        raise BenchError(f"{self.file.path}: holds embeddings and no images")


def open_split(file: EmbeddingFile, split: str, folders: Folders) -> ImageSource:
    """As `Dataset.open_split`, without a first argument."""
    return EmbeddedSource(file, split)


def open_file(path: str | Path) -> EmbeddingFile:
    """The file at a path, looked through; BenchError in one line for whatever is wrong with it."""
    place = Path(path).expanduser()
    if not place.is_file():
        what = "a folder, and a file is wanted" if place.is_dir() else "there is no such file; bench data embed writes one"
        raise BenchError(f"{place}: {what}")
    try:
        return _looked_through(place.resolve(), place, _stamp(place))
    except OSError as error:
        raise BenchError(f"{place}: cannot be read ({one_line(error)})") from error


def _stamp(path: Path) -> Stamp:
    facts = os.stat(path)
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            yield file
    except SafetensorError as error:
        found = kind_of(path)
        beginning = f"this is {found}" if found else one_line(error)
        raise BenchError(f"{path}: not a safetensors file that is whole ({beginning}); write or copy it again") from error


# -- looking through --------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def _looked_through(real: Path, path: Path, stamp: Stamp) -> EmbeddingFile:
    """stamp: so that a file that was written anew is looked through anew."""
    with opened(path) as file:
        return _Look(path, file).whole(stamp)


class _Look:
    """One look through one file."""

    def __init__(self, path: Path, file: Any):
        self.path, self.file = path, file
        self.names = set(file.keys())
        self.metadata: dict[str, str] = file.metadata() or {}

    def whole(self, stamp: Stamp) -> EmbeddingFile:
        self.refuse_missing()
        facts = facts_of(self.metadata, self.wrong, with_text="text/features" in self.names)
        shapes = {name: tuple(self.file.get_slice(name).get_shape()) for name in KNOWN if name in self.names}
        self.refuse_shapes(shapes)
        digest = hashlib.sha256(json.dumps(asdict(facts), sort_keys=True).encode())
        labels = {split: self.labels(split, facts) for split in SPLITS}
        self.refuse_other_text(shapes, facts)
        for split in SPLITS:
            digest.update(f"{split} {len(labels[split])}".encode() + labels[split].tobytes())
        for name in (name for name in KNOWN if name in shapes and not name.endswith("labels")):
            digest.update(f"{name} {shapes[name]}".encode())
            for part in self.vectors(name, shapes[name], facts):
                digest.update(part.tobytes())
        others = tuple(sorted(self.names - set(KNOWN)))
        return EmbeddingFile(self.path, facts, digest.hexdigest(), labels, shapes, stamp, others)

    def wrong(self, why: str) -> BenchError:
        return BenchError(f"{self.path}: {why}")

    def refuse_missing(self) -> None:
        wanted = [name for name in KNOWN[:6] if not name.endswith("pooled")]
        if missing := [name for name in wanted if name not in self.names]:
            raise self.wrong(f"has no tensor {', '.join(missing)}; wanted are {', '.join(wanted)}")
        if ("train/pooled" in self.names) != ("test/pooled" in self.names):
            raise self.wrong("has train/pooled or test/pooled without the other; both or none are wanted")

    # -- tensors ------------------------------------------------------------------------------------------------

    def refuse_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            dtype = self.file.get_slice(name).get_dtype()
            if name.endswith("labels") and dtype not in INTEGERS:
                raise self.wrong(f"{name}: {dtype}; whole numbers are wanted, for instance labels.astype('int64')")
            if not name.endswith("labels") and dtype != "F32":
                raise self.wrong(f"{name}: {dtype}; float32 is wanted: .astype('float32')")
            dimensions = 1 if name.endswith("labels") else 3 if name == "text/features" else 2
            if len(shape) != dimensions or 0 in shape:
                how = {1: "(images,)", 2: "(images, width)", 3: "(classes, templates, width)"}[dimensions]
                raise self.wrong(f"{name}: shape {shape}; {how} is wanted")
        width = shapes["train/features"][1]
        for split in SPLITS:
            for what in ("features", "pooled"):
                rows = shapes.get(f"{split}/{what}", shapes[f"{split}/labels"])[0]
                if rows != shapes[f"{split}/labels"][0]:
                    raise self.wrong(f"{split}/{what}: {rows} rows, and {shapes[f'{split}/labels'][0]} in {split}/labels")
        if shapes["test/features"][1] != width:
            raise self.wrong(f"test/features are {shapes['test/features'][1]} wide, train/features {width}")
        if "train/pooled" in shapes and shapes["train/pooled"][1] != shapes["test/pooled"][1]:
            raise self.wrong(f"test/pooled are {shapes['test/pooled'][1]} wide, train/pooled {shapes['train/pooled'][1]}")
        projection = (shapes.get("train/pooled", (0, 0))[1], width)
        if shapes.get("image/projection", projection) != projection:
            shape = shapes["image/projection"]
            raise self.wrong(f"image/projection: shape {shape}; {projection} is wanted, from pooled to features")

    def refuse_other_text(self, shapes: dict[str, tuple[int, ...]], facts: Facts) -> None:
        width = shapes["train/features"][1]
        text = (len(facts.class_names), len(facts.templates), width)
        if shapes.get("text/features", text) != text:
            raise self.wrong(
                f"text/features: shape {shapes['text/features']}; {text} is wanted, for {text[0]} class_names, {text[1]} "
                f"templates and train/features of width {width}"
            )

    def labels(self, split: str, facts: Facts) -> np.ndarray:
        labels = self.file.get_tensor(f"{split}/labels").astype(np.int64)
        bad, names = out_of_range(labels, len(facts.class_names)), facts.class_names
        if len(bad):
            different = len(np.unique(labels))
            more = f"; {different} different labels, {len(names)} class_names" if different > len(names) else ""
            said = out_of_range_in_words(int(labels[bad[0]]), f"row {bad[0]}", len(names))
            raise self.wrong(f"{split}/labels: {said}{more}")
        without = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
        if len(without):
            others = f" and {len(without) - 1} more" if len(without) > 1 else ""
            raise self.wrong(f"no {split} image of class {names[without[0]]!r} (label {without[0]}){others}")
        return labels

    def vectors(self, name: str, shape: Sequence[int], facts: Facts) -> Iterator[np.ndarray]:
        """The rows of a tensor part by part; BenchError for one that no direction can be read from."""
        tensor = self.file.get_slice(name)
        images = name.split("/")[1] == "features" and name != "text/features"
        for start in range(0, shape[0], ROWS_AT_ONCE):
            part = tensor[start : min(start + ROWS_AT_ONCE, shape[0])]
            rows = part.reshape(-1, shape[-1])
            if len(bad := np.flatnonzero(~np.isfinite(rows).all(axis=1))):
                raise self.wrong(f"{name}: {self.place(name, start, int(bad[0]), shape)} holds nan or inf")
            if name != "image/projection" and len(bad := np.flatnonzero(~rows.any(axis=1))):
                raise self.wrong(f"{name}: {self.place(name, start, int(bad[0]), shape)} is all zeros, which has no direction")
            if images and facts.normalised:
                lengths = np.linalg.norm(rows, axis=1)
                if len(bad := np.flatnonzero(np.abs(lengths - 1) > UNIT)):
                    row = self.place(name, start, int(bad[0]), shape)
                    raise self.wrong(f"{name}: {row} has length {lengths[bad[0]]:.4g}, and the metadata say normalised")
            yield part

    def place(self, name: str, start: int, row: int, shape: Sequence[int]) -> str:
        """How a row is called."""
        if len(shape) == 2:
            return f"row {start + row}"
        return f"class {start + row // shape[1]}, template {row % shape[1]}"
