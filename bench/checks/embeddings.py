"""`bench data check` of a file of embeddings: what is in it, and on which streams it can be used.

Opening it is the check: whatever is wrong is one line (bench/images/embeddings.py).
"""

from pathlib import Path

import numpy as np

from bench.checks.diagnosis import Finding
from bench.images.embeddings import SPLITS, EmbeddingFile, open_file

PREFIX, ENDING = "embeddings:", ".safetensors"


def is_meant(name: str) -> bool:
    """Is this the name of a file of embeddings, and not of a data set?"""
    return name.startswith(PREFIX) or name.endswith(ENDING)


def check(name: str) -> Finding:
    """Look through a file; BenchError for the first thing that is wrong."""
    file = open_file(Path(name.removeprefix(PREFIX)))
    return Finding(lines=[*described(file), *file.notes(), f"{file.path}: as it should be"])


def described(file: EmbeddingFile) -> list[str]:
    """What a file holds."""
    facts = file.facts
    classes = len(facts.class_names)
    lines = [
        f"{file.path}: {classes} classes, width {file.width}, of {facts.backbone} with weights {facts.weights}"
        + (f", data set {facts.dataset}" if facts.dataset else "")
    ]
    for split in SPLITS:
        counts = np.bincount(file.labels[split], minlength=classes)
        lines.append(f"{split}: {len(file.labels[split])} images, {counts.min()} to {counts.max()} of each class")
    if "text/features" in file:
        prompts = f"{len(facts.templates)} prompt{'s' * (len(facts.templates) > 1)} of each class"
        lines.append(f"text: {prompts}, logit scale {facts.logit_scale:.4g}")
    else:
        lines.append("text: none, so that methods which need it cannot run")
    if "train/pooled" in file:
        lines.append(f"before the projection: width {file.shapes['train/pooled'][1]}")
    lines.append(f"use it as {PREFIX}{file.path}-{_shape(classes)}")
    return lines


def _shape(classes: int) -> str:
    """Tasks x classes, as close to ten tasks as there are.

    >>> _shape(100), _shape(37), _shape(47 * 2)
    ('10x10', '37x1', '2x47')
    """
    tasks = min((n for n in range(2, classes + 1) if classes % n == 0), key=lambda n: abs(n - 10))
    return f"{tasks}x{classes // tasks}"
