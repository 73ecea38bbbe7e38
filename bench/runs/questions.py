"""What only the objects themselves can tell a plan: methods are torch modules, weights and devices are torch's to know.

Each question is a small dataclass. Its answer is plain data that JSON keeps as they are, because another process may give it
(bench/runs/helper.py) and a file may keep it (bench/runs/kept_answers.py). Answering imports torch, asking does not.
"""

import hashlib
import json
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.learning.settings import wanting
from bench.learning.stated import may_be_divided, needs_of, scenarios_of
from bench.system import registry
from bench.system.named_files import in_records, is_file

Answer = dict[str, Any]


@dataclass(frozen=True)
class Question(ABC):
    """Two equal questions have the same answer, for as long as it lasts."""

    @abstractmethod
    def answer(self) -> Answer:
        """From the objects themselves."""

    def lasts(self, answer: Answer) -> bool:
        """Will it be the same next time, as long as no source changes?"""
        return True

    def to_json(self) -> str:
        return json.dumps([type(self).__name__, asdict(self)])


@dataclass(frozen=True)
class OfMethod(Question):
    """Its version, the kinds of stream that it is defined for, and whether one run of it may be divided over processes."""

    method: str  # registered, or as bench.system.registry.own_method finds it

    def answer(self) -> Answer:
        method = registry.load("method", self.method)
        return {"version": method.version, "scenarios": scenarios_of(method), "several_processes": may_be_divided(method)}

    def lasts(self, answer: Answer) -> bool:
        """A user's own file may be edited."""
        return registry.own_method(self.method) is None


@dataclass(frozen=True)
class OfAllMethods(Question):
    """The names of those that can be imported, and a sentence for each that cannot."""

    def answer(self) -> Answer:
        loaded, broken = registry.load_all("method")
        return {"names": list(loaded), "broken": broken}

    def lasts(self, answer: Answer) -> bool:
        return not answer["broken"]  # what a plug-in lacks may be installed meanwhile


@dataclass(frozen=True)
class OfSettings(Question):
    """All hyper-parameters of a method on a protocol, the changed ones as records name them, and what it then needs of CLIP."""

    method: str
    protocol: str
    changes: tuple[tuple[str, str, str], ...]  # field, text, where it was given
    recipe: tuple[tuple[str, Any, str], ...] = ()  # of files: field, value, where it stands

    def answer(self) -> Answer:
        from bench.runs.assignments import Assignment, as_texts, chosen_settings, identifying

        method = registry.load("method", self.method)
        name = registry.name_of(self.method)
        changes = [Assignment(name, *change) for change in self.changes]
        recipe = {field: (value, where) for field, value, where in self.recipe}
        settings, changed = chosen_settings(name, method, self.protocol, changes, recipe)
        found = identifying(settings)
        overrides = ";".join(f"{name}={in_records(value, found.get(name))}" for name, value in sorted(changed.items()))
        needs = {"needs": needs_of(method, settings), "on_embeddings": as_texts(method.Settings, method.on_embeddings)}
        return {"settings": found, "overrides": overrides, "wanting": wanting(settings), **needs}

    def lasts(self, answer: Answer) -> bool:
        """Files may change."""
        return registry.own_method(self.method) is None and not any(map(is_file, answer["settings"].values()))


@dataclass(frozen=True)
class OfSearch(Question):
    """What a search tries for a method on a protocol, and what all of its hyper-parameters are there at present."""

    method: str
    protocol: str
    changes: tuple[tuple[str, str, str], ...]  # field, text, where it was given
    given: tuple[tuple[str, str, str], ...] = ()  # in the place of the method's own: field, plain form as JSON, where it stands

    def answer(self) -> Answer:
        from bench.runs.assignments import Assignment, chosen_settings
        from bench.runs.tuning.spaces import checked, sound_space, to_write

        method = registry.load("method", self.method)
        changes = [Assignment(self.method, *change) for change in self.changes]
        settings, changed = chosen_settings(self.method, method, self.protocol, changes)
        own = checked(self.method, method.Settings, self.given) if self.given else sound_space(self.method, method.Settings)
        space = {name: plain for name, plain in own.items() if name not in changed}
        return {"space": space, "settings": asdict(settings), "written": to_write(method, settings, self.protocol, changed)}


@dataclass(frozen=True)
class OfWeights(Question):
    """What tells them from others."""

    backbone: str
    pretrained: str | None

    def answer(self) -> Answer:
        from bench.clip.loading import identity

        return {"identity": identity(self.backbone, self.pretrained)}

    def lasts(self, answer: Answer) -> bool:
        """Files may change; tags and the package's own weights do not."""
        return not self.pretrained or answer["identity"] == f"{self.backbone}:{self.pretrained}"


@dataclass(frozen=True)
class OfDevice(Question):
    """Device and precision with "auto" resolved on this machine."""

    device: str
    precision: str
    hardware: str = field(default_factory=lambda: _hardware())

    def answer(self) -> Answer:
        from bench.clip import backbone

        device = backbone.resolve_device(self.device)
        return {"device": device, "precision": backbone.resolve_precision(self.precision, device)}


@dataclass(frozen=True)
class OfGpuMemory(Question):
    """Bytes of memory of the first GPU; 0 where there is none."""

    hardware: str = field(default_factory=lambda: _hardware())

    def answer(self) -> Answer:
        import torch

        return {"bytes": torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0}


KINDS: Mapping[str, type[Question]] = {
    kind.__name__: kind for kind in (OfMethod, OfAllMethods, OfSettings, OfSearch, OfWeights, OfDevice, OfGpuMemory)
}


def from_json(text: str) -> Question:
    """What `to_json` gave."""
    kind, facts = json.loads(text)
    return KINDS[kind](**facts)


def _hardware() -> str:
    """Changes when another device or driver could be seen."""
    nodes = sorted(str(path) for pattern in ("nvidia[0-9]*", "dxg", "kfd") for path in Path("/dev").glob(pattern))
    driver = Path("/proc/driver/nvidia/version")
    facts = [platform.node(), os.environ.get("CUDA_VISIBLE_DEVICES"), nodes, driver.read_text() if driver.exists() else ""]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
