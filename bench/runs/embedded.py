"""Plans on embeddings: which CLIP such a run is of, and which methods can do without CLIP itself.

A method says what it needs (`Method.needs`). Where a file lacks some of it, settings of the method that need less take the
place of its own (`Method.on_embeddings`): as if the user had given them, with a note, and never against what was given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.images.embeddings import EmbeddingFile
from bench.runs.facts import ChosenSettings, Facts
from bench.runs.request import Request
from bench.streams.protocol import Protocol

# what may be needed -> (the tensor that has it, as lines say it)
NEEDS: Mapping[str, tuple[str, str]] = {
    "features": ("train/features", "image features"),
    "pooled": ("train/pooled", "image features before the projection (train/pooled)"),
    "projection": ("image/projection", "the image tower's projection (image/projection)"),
    "texts": ("text/features", "text embeddings (text/features)"),
}
TOWERS = "CLIP itself: pixels, other texts, or gradients through a tower"


@dataclass(frozen=True)
class Clip:
    """What a run records of its CLIP."""

    backbone: str
    pretrained: str | None
    weights: str
    precision: str


def conditions(request: Request, protocol: Protocol, facts: Facts) -> tuple[Clip, list[str]]:
    """The CLIP that was asked for, or the one whose embeddings the protocol has; and notes for the user."""
    file = protocol.embeddings
    if file is None:
        weights = facts.weights(request.backbone, request.pretrained)
        return Clip(request.backbone, request.pretrained, weights, request.precision), []
    if request.synthetic:
        raise BenchError(f"{protocol.name}: there are no images that stand-ins could take the place of; leave --data out")
    _refuse_another_clip(request, protocol, file)
    said = file.facts
    notes = []
    if request.device == "cpu" and request.precision != "float32":
        notes.append(f"{protocol.name}: computed in float32; --precision is that of towers, and none is used")
    return Clip(said.backbone, said.weights, f"{said.backbone}:{said.weights}", "float32"), notes


def _refuse_another_clip(request: Request, protocol: Protocol, file: EmbeddingFile) -> None:
    """`--backbone` and `--pretrained` decide nothing here; a command that names another CLIP means another file."""
    said = file.facts
    other = request.backbone not in ("mini", said.backbone)  # mini is what stands there if nothing is given
    if request.pretrained is not None and Path(request.pretrained).name not in (said.weights, said.weights.split("@")[0]):
        other = True
    if other:
        asked = f"{request.backbone} {request.pretrained or ''}".strip()
        raise BenchError(
            f"{protocol.name}: its embeddings are of {said.backbone} with weights {said.weights}, not of {asked}; leave "
            "--backbone and --pretrained out"
        )


def available(protocol: Protocol) -> set[str]:
    """What of `Method.needs` there is on a protocol: everything where it has images."""
    if protocol.embeddings is None:
        return {*NEEDS, "towers"}
    return {need for need, (tensor, _) in NEEDS.items() if tensor in protocol.embeddings}


def lacking(needs: Sequence[str], protocol: Protocol) -> tuple[str, ...]:
    """What of this the protocol does not have, in words."""
    missing = [need for need in needs if need not in available(protocol)]
    return tuple(NEEDS[need][1] for need in missing) if set(missing) <= set(NEEDS) else (TOWERS,)


def settings(
    method: str,
    protocol: Protocol,
    changes: Sequence[tuple[str, str, str]],
    facts: Facts,
    recipe: Mapping[str, tuple[Any, str]] = {},
) -> tuple[ChosenSettings, list[str]]:
    """The hyper-parameters of a run, and a note where they are others than on images."""
    hyper = facts.settings(method, protocol.known_as, changes, recipe)
    given = {name for name, *_ in changes}
    now = {name: str(value).lower() for name, value in hyper.settings.items()}
    instead = {name: text for name, text in hyper.on_embeddings.items() if name not in given and now.get(name) != text.lower()}
    if not (instead and lacking(hyper.needs, protocol)):
        return hyper, []
    more = [(name, text, f"on {protocol.name}") for name, text in instead.items()]
    other = facts.settings(method, protocol.known_as, [*changes, *more], recipe)
    if found := lacking(other.needs, protocol):
        return (hyper if found == (TOWERS,) else other), []
    said = ", ".join(f"{name}={text}" for name, text in instead.items())
    why = " and ".join(lacking(hyper.needs, protocol))
    return other, [f"{method} runs with {said} on {protocol.name}: otherwise it needs {why}"]


@dataclass
class Unfit:
    """The methods that cannot run on a protocol."""

    protocol: Protocol
    chosen_by_name: bool
    found: dict[tuple[str, ...], list[str]] = field(default_factory=dict)

    def note(self, method: str, lacking: tuple[str, ...]) -> None:
        own = self.found.setdefault(lacking, [])
        if method not in own:
            own.append(method)

    def said(self) -> list[str]:
        """A line for each reason; BenchError if somebody has asked for one of the methods by its name."""
        file = self.protocol.embeddings
        if not (self.found and file):
            return []
        lines = [f"{', '.join(methods)}: {_need(methods)} {' and '.join(lack)}" for lack, methods in self.found.items()]
        if self.chosen_by_name:
            raise BenchError(f"{self.protocol.name}: {'; '.join(lines)}; {file.path} has embeddings alone")
        return [f"left out on {self.protocol.name}, which has embeddings alone: {line}" for line in lines]


def _need(methods: Sequence[str]) -> str:
    return "needs" if len(methods) == 1 else "need"
