"""One run: everything that is asked for as plain data, its id, and where its numbers go.

The names are those of the options of `bench run` and of the columns of records.csv. What a run imports (a method is a torch
module) is loaded when it is carried out.
"""

import dataclasses
import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.images.dataset import Content
from bench.results.records import SCHEMA, SYNTHETIC
from bench.results.run_folder import RunFolder, run_id_of
from bench.runs import assignments
from bench.streams import names as protocol_names
from bench.streams.protocol import Protocol
from bench.system import named_files, registry

if TYPE_CHECKING:
    from bench.clip.backbone import Backbone
    from bench.learning.method import Method


@dataclass(frozen=True)
class Run:
    """What is asked for. Processes hand it to each other as JSON, so it holds nothing that JSON would change."""

    protocol: str  # its canonical name
    protocol_version: str
    method: str
    method_version: str
    settings: dict[str, Any]  # the hyper-parameters that identify the run
    overrides: str  # "field=value;..." as the user gave them
    backbone: str
    pretrained: str | None
    weights: str  # identity of the weights: digest of a file, or architecture and tag
    device: str
    order_seed: int
    seed: int
    limit_train: int | None
    limit_test: int | None
    out: Path
    precision: str = "float32"  # of the towers' blocks
    synthetic: bool = False  # stand-in images instead of the data sets' own
    tasks: int = 0  # so many the stream has; 0: not known
    given: str = ""  # the name by which the protocol is found again, where it is another one: folder:PATH
    method_from: str = ""  # how the method is found again, where it is not registered: FILE.py:CLASS
    content: Content = "official"  # what the protocol's name says about its images
    images: str = ""  # digest of the images of a stream whose name says nothing about them; else empty
    validation: str = ""  # the part of the training images that is scored in the place of the test images; empty: none
    accelerate: str = "none"  # training by compiled functions or CUDA graphs: bench/clip/acceleration.py
    processes: int = 1  # that carry it out together: its numbers differ from those of one in their last bits
    keep_model: bool = False  # is the trained model wanted beside the results? No number depends on it: not part of the identity

    @property
    def protocol_given(self) -> str:
        """How the protocol is found again."""
        return self.given or self.protocol

    @property
    def method_given(self) -> str:
        """How the method is found again."""
        return self.method_from or self.method

    @property
    def limits(self) -> str:
        """What makes other numbers than the whole stream's test images: stand-ins, a validation part, fewer images. Part of
        the identity."""
        parts: dict[str, Any] = {"data": SYNTHETIC if self.synthetic else None, "validation": self.validation or None}
        parts |= {"train": self.limit_train, "test": self.limit_test}
        return ";".join(f"{name}={value}" for name, value in parts.items() if value is not None)

    @property
    def identity(self) -> dict[str, Any]:
        """The facts that the run id is a hash of."""
        return {
            "schema": SCHEMA,
            "protocol": self.protocol,
            "protocol_version": self.protocol_version,
            "method": self.method,
            "method_version": self.method_version,
            "settings": named_files.by_content(self.settings),
            "backbone": self.backbone,
            "weights": self.weights,
            "device": self.device.split(":")[0],
            **({} if self.precision == "float32" else {"precision": self.precision}),
            **({} if self.accelerate == "none" else {"accelerate": self.accelerate}),
            "order_seed": self.order_seed,
            "seed": self.seed,
            "limits": self.limits,
            **({"images": self.images} if self.images else {}),
            **({"processes": self.processes} if self.processes > 1 else {}),
        }

    @functools.cached_property
    def run_id(self) -> str:
        """Found once: a plan asks for it twenty times a run."""
        return run_id_of(self.identity)

    @property
    def folder(self) -> Path:
        return self.files.path

    @property
    def files(self) -> RunFolder:
        return RunFolder.of(self.out, self.protocol, self.method, self.run_id)

    @property
    def weights_label(self) -> str:
        """How records name the weights."""
        return weights_label(self.backbone, self.pretrained, self.weights)

    @property
    def checkpoint(self) -> Path:
        return self.files.checkpoint

    @property
    def finished(self) -> bool:
        """Is there all that was asked for? A run without the model that is wanted of it is carried out again for it."""
        return self.files.finished and (not self.keep_model or self.files.model.exists())

    @property
    def label(self) -> str:
        return f"{self.protocol} {self.method} order {self.order_seed} seed {self.seed}"

    def loaded(self) -> "LoadedRun":
        """What can be carried out; BenchError where code has changed since the run was planned."""
        protocol = protocol_names.find(self.protocol_given)
        method = registry.load("method", self.method_given)
        settings = assignments.restored(method.Settings, self.settings)
        now = replace(
            self,
            protocol=protocol.name,
            protocol_version=protocol.version,
            method_version=method.version,
            settings=assignments.identifying(settings),
            validation=protocol.validation.text if protocol.validation else "",
        )
        if now.run_id != self.run_id:
            raise BenchError(f"{self.label}: protocol, method or settings are not what they were in the plan; repeat the command")
        return LoadedRun(self, protocol, method, settings)

    def to_json(self) -> dict[str, Any]:
        """As plain data, for another process."""
        facts = dataclasses.asdict(self) | {"out": str(self.out)}
        return {name: value for name, value in facts.items() if name != "processes" or self.processes > 1}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "Run":
        return cls(**{**facts, "out": Path(facts["out"])})


def weights_label(backbone: str, pretrained: str | None, identity: str) -> str:
    """How records name weights: a tag, or a file's name and the start of its digest."""
    name = Path(pretrained).name if pretrained else backbone
    return name if ":" in identity else f"{name}@{identity[:8]}"


@dataclass(frozen=True)
class LoadedRun:
    """A run with its protocol, its method and the method's settings."""

    run: Run
    protocol: Protocol
    method: "type[Method]"
    settings: Any  # of the method's class Settings

    def backbone(self) -> "Backbone":
        """The CLIP of the run; what there is of it in a file, where the protocol has embeddings in the place of images."""
        from bench.clip import backbone, embedded

        run = self.run
        if self.protocol.embeddings:
            return embedded.load(self.protocol.embeddings, run.device)
        return backbone.load(run.backbone, run.pretrained, run.device, run.precision)
