"""Versioned data of the data sets: class names, prompt templates, class orders and lists of files of a split.

A list that changes so that numbers move gets a new version in its file, and the data sets that use it as well.
"""

import functools
import gzip
import json
from pathlib import Path

HERE = Path(__file__).parent


@functools.cache
def _json(name: str) -> dict:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def class_names(name: str) -> tuple[str, ...]:
    """The names of the classes, by label: the file class_names/NAME.json."""
    return tuple(_json(f"class_names/{name}.json")["names"])


def wordnet_ids(name: str) -> tuple[str, ...]:
    """The WordNet ids ("n01440764") of the classes, by label, of the same file: the names of their folders."""
    return tuple(_json(f"class_names/{name}.json")["wordnet_ids"])


def templates(name: str) -> tuple[str, ...]:
    """A set of prompt templates of templates.json; training uses the first."""
    return tuple(_json("templates.json")[name]["templates"])


def class_order(name: str, run: str = "") -> tuple[int, ...]:
    """A published class order of class_orders.json: the original labels in the order in which they are learned.

    Where a paper has several, `run` says which: "run0" of "clap-200", "1992" of "cgil-cub200".
    """
    order = _json("class_orders.json")[name]["orders"]
    return tuple(order[run] if run else order)


@functools.cache
def lines(name: str) -> tuple[str, ...]:
    """The lines of a packed text file, for instance the test images of a split."""
    return tuple(gzip.decompress((HERE / name).read_bytes()).decode().splitlines())
