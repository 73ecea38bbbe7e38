"""What will be run: protocols x methods x order seeds x seeds, each with its hyper-parameters and its run id."""

import dataclasses
import hashlib
import itertools
import json
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import protocol_names, registry
from bench.checkpoint import finished_tasks
from bench.errors import BenchError, unknown_name
from bench.method import Method
from bench.protocol import Protocol
from bench.records import SCHEMA, SYNTHETIC


@dataclass(frozen=True)
class Run:
    """One run: everything that can change its numbers, and where they go."""

    protocol: Protocol
    method_name: str
    method: type[Method]
    settings: Any
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

    @property
    def limits(self) -> str:
        """What is not as the protocol says: stand-in images, fewer images. Part of the identity."""
        parts = {"data": SYNTHETIC if self.synthetic else None, "train": self.limit_train, "test": self.limit_test}
        return ";".join(f"{name}={value}" for name, value in parts.items() if value is not None)

    @property
    def identity(self) -> dict[str, Any]:
        """The facts that the run id is a hash of."""
        return {
            "schema": SCHEMA,
            "protocol": self.protocol.name,
            "protocol_version": self.protocol.version,
            "method": self.method_name,
            "method_version": self.method.version,
            "settings": dataclasses.asdict(self.settings),
            "backbone": self.backbone,
            "weights": self.weights,
            "device": self.device.split(":")[0],
            **({} if self.precision == "float32" else {"precision": self.precision}),
            "order_seed": self.order_seed,
            "seed": self.seed,
            "limits": self.limits,
        }

    @property
    def run_id(self) -> str:
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def folder(self) -> Path:
        return self.out / self.protocol.name / self.method_name / self.run_id

    @property
    def weights_label(self) -> str:
        """How records name the weights: a tag, or a file's name and the start of its digest."""
        name = Path(self.pretrained).name if self.pretrained else self.backbone
        return name if ":" in self.weights else f"{name}@{self.weights[:8]}"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def finished(self) -> bool:
        return (self.folder / "manifest.json").exists()

    @property
    def label(self) -> str:
        return f"{self.protocol.name} {self.method_name} order {self.order_seed} seed {self.seed}"


def choose_methods(names: Sequence[str], protocol: Protocol) -> tuple[dict[str, type[Method]], list[str]]:
    """The named methods ("all": every one that can run the protocol's scenario), and notes on those left out."""
    if list(names) != ["all"]:
        chosen = {name: registry.load("method", name) for name in names}
        for name, method in chosen.items():
            if protocol.kind not in method.scenarios:
                raise BenchError(f"{name} cannot run {protocol.name}: it is not defined for {protocol.kind} streams")
        return chosen, []
    loaded, notes = registry.load_all("method")
    chosen = {}
    for name, method in loaded.items():
        if protocol.kind in method.scenarios:
            chosen[name] = method
        else:
            notes.append(f"{name} left out: it is not defined for {protocol.kind} streams")
    # the floor first: every table is read against it
    return dict(sorted(chosen.items(), key=lambda item: (item[0] != "zero-shot", item[0]))), notes


def parse_overrides(assignments: Sequence[str], methods: dict[str, type[Method]]) -> dict[str, dict[str, Any]]:
    """--set METHOD.FIELD=VALUE, checked against the method's hyper-parameters: method -> field -> value."""
    overrides: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        target, equals, text = assignment.partition("=")
        method, dot, field = target.partition(".")
        if not (equals and dot and method and field):
            raise BenchError(f"--set {assignment}: write it as METHOD.FIELD=VALUE, for instance cgil.vae_epochs=100")
        if method not in methods:
            raise BenchError(f"--set {assignment}: {unknown_name('method of this run', method, methods)}")
        fields = typing.get_type_hints(methods[method].Settings)
        if field not in fields:
            raise BenchError(f"--set {assignment}: {unknown_name(f'hyper-parameter of {method}', field, fields)}")
        overrides.setdefault(method, {})[field] = _convert(text, fields[field], assignment)
    return overrides


def _convert(text: str, kind: Any, assignment: str) -> Any:
    """The text as a value of the field's type."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        if text.lower() == "none":
            return None
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    if typing.get_origin(kind) is typing.Literal:
        if text in typing.get_args(kind):
            return text
        raise BenchError(f"--set {assignment}: choose one of {', '.join(map(str, typing.get_args(kind)))}")
    if typing.get_origin(kind) is tuple and typing.get_args(kind) == (int, ...):
        return tuple(_convert(part, int, assignment) for part in text.split(",") if part.strip())
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise BenchError(f"--set {assignment}: true or false is wanted, not {text!r}")
    if kind in (int, float, str):
        try:
            return kind(text)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise BenchError(f"--set {assignment}: {wanted} is wanted, not {text!r}") from None
    raise BenchError(f"--set {assignment}: this hyper-parameter cannot be set from the command line")


def build(
    protocols: Sequence[str],
    methods: Sequence[str],
    order_seeds: Sequence[int],
    seeds: Sequence[int],
    assignments: Sequence[str],
    backbone: str,
    pretrained: str | None,
    device: str,
    limit_train: int | None,
    limit_test: int | None,
    out: Path,
    synthetic: bool = False,
    precision: str = "float32",
    ablations: Sequence[str] = (),
) -> tuple[list[Run], list[str]]:
    """The runs in the order in which they will be made, and notes for the user.

    Every one of `ablations` (METHOD.FIELD=VALUE) adds runs of its method with that change on top of `assignments`.
    """
    from bench.backbone import identity

    weights = identity(backbone, pretrained)
    runs, notes = [], []
    for protocol_name in protocols:
        protocol: Protocol = protocol_names.find(protocol_name)
        chosen, left_out = choose_methods(methods, protocol)
        notes += left_out
        overrides = parse_overrides(assignments, chosen)
        ablated = [parse_overrides([ablation], chosen) for ablation in ablations]
        orders = list(order_seeds)
        if protocol.fixed_order and orders != [0]:
            notes.append(f"{protocol.name} has one fixed order: order seeds other than 0 are left out")
            orders = [0]
        for order_seed in orders:
            protocol.tasks(order_seed)  # an order that does not exist is said before anything is run
            for method_name, method in chosen.items():
                common = overrides.get(method_name, {})
                variants = [common] + [common | changes[method_name] for changes in ablated if method_name in changes]
                for changed, seed in itertools.product(variants, seeds):
                    settings = _settings(method_name, method, protocol, changed)
                    runs.append(
                        Run(
                            protocol=protocol,
                            method_name=method_name,
                            method=method,
                            settings=settings,
                            overrides=";".join(f"{field}={value}" for field, value in sorted(changed.items())),
                            backbone=backbone,
                            pretrained=pretrained,
                            weights=weights,
                            device=device,
                            order_seed=order_seed,
                            seed=seed,
                            limit_train=limit_train,
                            limit_test=limit_test,
                            out=out,
                            precision=precision,
                            synthetic=synthetic,
                        )
                    )
    return runs, notes


def _settings(name: str, method: type[Method], protocol: Protocol, changed: dict[str, Any]) -> Any:
    try:
        return method.settings_for(protocol.name, changed)
    except ValueError as error:
        raise BenchError(f"{name}: {error}") from error


def render(runs: Sequence[Run]) -> str:
    """The plan as a table: what is finished, what will be continued, what is new."""
    from tabulate import tabulate

    rows = []
    for run in runs:
        done = finished_tasks(run.checkpoint)
        status = "finished" if run.finished else f"continues after task {done}" if done else "new"
        method = f"{run.method_name} {run.overrides}" if run.overrides else run.method_name
        rows.append([run.protocol.name, method, run.order_seed, run.seed, run.run_id, status])
    waiting = sum(not run.finished for run in runs)
    first = runs[0]
    head = (
        f"{len(runs)} runs, {waiting} to do; backbone {first.backbone} ({first.weights_label}) on "
        f"{first.device} in {first.precision}{', SYNTHETIC images' if first.synthetic else ''}, results in {first.out}"
    )
    return head + "\n" + tabulate(rows, ["protocol", "method", "order", "seed", "run", "status"], tablefmt="simple")
