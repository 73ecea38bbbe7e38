"""What an unfinished run has produced so far: one file that is replaced atomically after each task."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.runs import sealed_file
from bench.runs.sealed_file import Damaged as Damaged

if TYPE_CHECKING:
    import torch


@dataclass
class Journal:
    """The records of a run up to now."""

    finished_tasks: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)  # of records.csv
    samples: dict[str, "torch.Tensor"] = field(default_factory=dict)  # of samples.safetensors
    seconds: list[dict[str, float]] = field(default_factory=list)  # per learned task: learn, evaluate
    image_passes: int = 0  # images that went through an image tower
    made_from: dict[str, Any] = field(default_factory=dict)  # digests of code and data that the finished tasks were made from
    ties: list[dict[str, Any]] = field(default_factory=list)  # images with several best classes, task-agnostic streams


def to_bytes(journal: Journal, run_id: str, state: dict[str, "torch.Tensor"]) -> bytes:
    """A safetensors file with the method's state, the per-sample scores, and the rest as facts (bench/runs/sealed_file.py)."""
    return sealed_file.to_bytes(*_parts(journal, run_id, state))


def write(path: Path, journal: Journal, run_id: str, state: dict[str, "torch.Tensor"]) -> None:
    """The same file on disk."""
    sealed_file.write(path, *_parts(journal, run_id, state))


def _parts(
    journal: Journal, run_id: str, state: dict[str, "torch.Tensor"]
) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    tensors = {f"state/{name}": value for name, value in state.items()}
    scores, places = _joined(journal.samples)
    tensors |= {f"samples/{name}": value for name, value in scores.items()}
    facts = {
        "run_id": run_id,
        "finished_tasks": journal.finished_tasks,
        "rows": journal.rows,
        "samples": places,
        "seconds": journal.seconds,
        "image_passes": journal.image_passes,
        "made_from": journal.made_from,
        **({"ties": journal.ties} if journal.ties else {}),
    }
    return tensors, facts


def from_bytes(data: bytes) -> tuple[Journal, str, dict[str, "torch.Tensor"]]:
    """Journal, run id and the method's state; Damaged if any byte is not as it was written."""
    facts, tensors = sealed_file.from_bytes(data)

    def part(prefix: str) -> dict[str, "torch.Tensor"]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    try:
        samples = _separated(part("samples/"), facts["samples"])
        journal = Journal(
            facts["finished_tasks"],
            facts["rows"],
            samples,
            facts["seconds"],
            facts["image_passes"],
            facts.get("made_from", {}),
            facts.get("ties", []),
        )
    except KeyError as missing:
        raise Damaged(f"another version of the program has written it, without {missing}") from None
    return journal, facts["run_id"], part("state/")


def _joined(samples: dict[str, "torch.Tensor"]) -> tuple[dict[str, "torch.Tensor"], dict[str, dict[str, int]]]:
    """The arrays of one kind end to end, and how long each is: the time to save them is a time for every tensor."""
    import torch

    kinds: dict[str, dict[str, torch.Tensor]] = {}
    for name, values in samples.items():
        kinds.setdefault(str(values.dtype).removeprefix("torch."), {})[name] = values
    lengths = {kind: {name: len(values) for name, values in parts.items()} for kind, parts in kinds.items()}
    return {kind: torch.cat(list(parts.values())) for kind, parts in kinds.items()}, lengths


def _separated(joined: dict[str, "torch.Tensor"], lengths: dict[str, dict[str, int]]) -> dict[str, "torch.Tensor"]:
    """What `_joined` made one, as it was."""
    return {
        name: values.clone()
        for kind, parts in lengths.items()
        for name, values in zip(parts, joined[kind].split(list(parts.values())))
    }


def finished_tasks(path: Path) -> int:
    """How many tasks are done according to a checkpoint file; 0 if there is none."""
    try:
        return int(sealed_file.read_facts(path)["finished_tasks"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def made_from(path: Path) -> dict[str, Any]:
    """What the finished tasks were made from, according to a checkpoint file; empty where it does not say."""
    try:
        return dict(sealed_file.read_facts(path)["made_from"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}
