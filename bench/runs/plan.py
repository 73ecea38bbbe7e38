"""What will be run: protocols x methods x order seeds x seeds, each with its hyper-parameters and its run id.

A plan is made of facts (bench/runs/facts.py) and opens no image; what runs import is loaded when they start.
"""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.images.dataset import Content
from bench.results.records import SCHEMA, SYNTHETIC
from bench.results.run_folder import RunFolder, run_id_of
from bench.runs import assignments as changes
from bench.runs.assignments import Assignment
from bench.runs.facts import Facts
from bench.streams import names as protocol_names
from bench.system import registry

if TYPE_CHECKING:
    from bench.learning.method import Method
    from bench.streams.protocol import Protocol


@dataclass(frozen=True)
class PlannedProtocol:
    """As much of a protocol as a plan needs."""

    name: str
    version: str
    given: str  # the name by which the user asked for it: that of folder:PATH says where the folder lies
    content: Content = "official"  # what its name says about its images


@dataclass(frozen=True)
class PlannedMethod:
    """As much of a method as a plan needs."""

    version: str


@dataclass(frozen=True)
class Run:
    """One run: everything that is asked for, and where its numbers go. `loaded` is what can be carried out."""

    protocol: "Protocol | PlannedProtocol"
    method_name: str
    method: "type[Method] | PlannedMethod"
    settings: Any  # the method's Settings; in a plan a dictionary
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
    given: str = ""  # how its protocol is found again, where that is more than its name
    images: str = ""  # digest of the images of a stream whose name says nothing about them; else empty

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
            "settings": self.settings if isinstance(self.settings, dict) else changes.identifying(self.settings),
            "backbone": self.backbone,
            "weights": self.weights,
            "device": self.device.split(":")[0],
            **({} if self.precision == "float32" else {"precision": self.precision}),
            "order_seed": self.order_seed,
            "seed": self.seed,
            "limits": self.limits,
            **({"images": self.images} if self.images else {}),
        }

    @property
    def content(self) -> Content:
        return self.protocol.content

    @property
    def run_id(self) -> str:
        return run_id_of(self.identity)

    @property
    def folder(self) -> Path:
        return self.files.path

    @property
    def files(self) -> RunFolder:
        return RunFolder.of(self.out, self.protocol.name, self.method_name, self.run_id)

    @property
    def weights_label(self) -> str:
        """How records name the weights: a tag, or a file's name and the start of its digest."""
        name = Path(self.pretrained).name if self.pretrained else self.backbone
        return name if ":" in self.weights else f"{name}@{self.weights[:8]}"

    @property
    def checkpoint(self) -> Path:
        return self.files.checkpoint

    @property
    def finished(self) -> bool:
        return self.files.finished

    @property
    def label(self) -> str:
        return f"{self.protocol.name} {self.method_name} order {self.order_seed} seed {self.seed}"

    def loaded(self) -> "Run":
        """The same run with its protocol, its method and its settings imported."""
        if not isinstance(self.protocol, PlannedProtocol):
            return self
        method = registry.load("method", self.method_name)
        run = replace(
            self,
            protocol=protocol_names.find(self.protocol.given),
            method=method,
            settings=changes.restored(method.Settings, self.settings),
            given=self.protocol.given,
        )
        if run.run_id != self.run_id:
            raise BenchError(f"{self.label}: protocol, method or settings are not what they were in the plan; repeat the command")
        return run

    def to_json(self) -> dict[str, Any]:
        """A planned run as plain data, for another process."""
        return dataclasses.asdict(self) | {"settings": self.identity["settings"], "out": str(self.out)}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "Run":
        planned = {"protocol": PlannedProtocol(**facts["protocol"]), "method": PlannedMethod(**facts["method"])}
        return cls(**{**facts, **planned, "out": Path(facts["out"])})


def build(
    protocols: Sequence[str],
    methods: Sequence[str],
    order_seeds: Sequence[int],
    seeds: Sequence[int],
    assignments: Sequence[str | Assignment],
    backbone: str,
    pretrained: str | None,
    device: str,
    limit_train: int | None,
    limit_test: int | None,
    out: Path,
    synthetic: bool = False,
    precision: str = "float32",
    ablations: Sequence[str] = (),
    grid: Sequence[Sequence[Assignment]] = (),
    other_methods: Sequence[str] = (),
    facts: Facts | None = None,
) -> tuple[list[Run], list[str]]:
    """The runs in the order in which they will be made, and notes for the user.

    `grid` has the values of one hyper-parameter in each of its items: every combination is a run. Every one of `ablations`
    (METHOD.FIELD=VALUE) adds runs of its method with that change on top. A change may be meant for `other_methods`, which
    the same study names elsewhere.
    """
    if facts is None:
        with Facts() as facts:
            return build(
                protocols, methods, order_seeds, seeds, assignments, backbone, pretrained, device, limit_train, limit_test, out,
                synthetic, precision, ablations, grid, other_methods, facts,
            )  # fmt: skip
    common = [changes.parse(one) if isinstance(one, str) else one for one in assignments]
    extra = [changes.parse(one, "--ablate") for one in ablations]
    weights = facts.weights(backbone, pretrained)
    found = [facts.protocol(name) for name in protocols]
    chosen, notes = [], []
    for protocol in found:
        names, left_out = _choose_methods(methods, protocol, facts)
        chosen.append(names)
        notes += left_out
    if "all" in other_methods:
        other_methods = facts.methods()[0]
    known = dict.fromkeys([*itertools.chain(*chosen), *other_methods])
    changes.check_methods([*common, *itertools.chain(*grid), *extra], list(known))
    runs = []
    for given, protocol, names in zip(protocols, found, chosen):
        orders = list(order_seeds)
        notes += protocol["notes"] if not synthetic else []
        if protocol["fixed_order"] and orders != [0]:
            notes.append(f"{protocol['name']} has one fixed order: order seeds other than 0 are left out")
            orders = [0]
        # an order that does not exist is said before anything is run
        tasks = {order_seed: facts.tasks(given, order_seed) for order_seed in orders}
        planned = PlannedProtocol(
            protocol["name"], protocol["version"], protocol_names.from_anywhere(given), protocol["content"]
        )
        images = "" if synthetic else facts.own_images(given, protocol["content"], limit_train, limit_test)
        for order_seed, name in itertools.product(orders, names):
            for variant, seed in itertools.product(_variants(name, common, grid, extra), seeds):
                hyper = facts.settings(name, protocol["name"], [one.change for one in variant])
                runs.append(
                    Run(
                        protocol=planned,
                        method_name=name,
                        method=PlannedMethod(facts.method(name)["version"]),
                        settings=hyper["settings"],
                        overrides=hyper["overrides"],
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
                        tasks=tasks[order_seed],
                        images=images,
                    )
                )
    return without_repeats(runs), notes


def without_repeats(runs: Iterable[Run]) -> list[Run]:
    """Each run once, where it came first."""
    found: dict[str, Run] = {}
    for run in runs:
        found.setdefault(run.run_id, run)
    return list(found.values())


def _choose_methods(names: Sequence[str], protocol: dict[str, Any], facts: Facts) -> tuple[list[str], list[str]]:
    """The named methods ("all": every one that can run the protocol's scenario), and notes on those left out."""
    kind = protocol["kind"]
    if list(names) != ["all"]:
        for name in names:
            if kind not in facts.method(name)["scenarios"]:
                raise BenchError(f"{name} cannot run {protocol['name']}: it is not defined for {kind} streams")
        return list(names), []
    every, notes = facts.methods()
    notes = list(notes)
    chosen = [name for name in every if kind in facts.method(name)["scenarios"]]
    notes += [f"{name} left out: it is not defined for {kind} streams" for name in every if name not in chosen]
    return sorted(chosen, key=lambda name: (name != "zero-shot", name)), notes  # every table is read against the floor


def _variants(
    method: str, common: Sequence[Assignment], grid: Sequence[Sequence[Assignment]], ablations: Sequence[Assignment]
) -> list[list[Assignment]]:
    """The sets of changes that the method is run with."""
    own = [one for one in common if one.method == method]
    axes = [axis for axis in grid if axis and axis[0].method == method]
    points = [own + list(point) for point in itertools.product(*axes)]
    return points + [[*point, one] for one in ablations if one.method == method for point in points]


def render(
    runs: Sequence[Run], statuses: Sequence[str], to_do: Collection[str], columns: Mapping[str, Sequence[str]] | None = None
) -> str:
    """The plan as a table. statuses: what there is of each run (bench/runs/reuse.py); to_do: the ids of those that will be
    carried out; columns: more cells for each run."""
    from tabulate import tabulate

    columns = columns or {}
    rows = []
    for place, run in enumerate(runs):
        method = f"{run.method_name} {run.overrides}" if run.overrides else run.method_name
        extra = [cells[place] for cells in columns.values()]
        rows.append([run.protocol.name, method, run.order_seed, run.seed, run.run_id, statuses[place], *extra])
    conditions = dict.fromkeys(
        f"backbone {run.backbone} ({run.weights_label}) on {run.device} in {run.precision}"
        f"{', SYNTHETIC images' if run.synthetic else ''}, results in {run.out}"
        for run in runs
    )
    header = ["protocol", "method", "order", "seed", "run", "status", *columns]
    return f"{len(runs)} runs, {len(to_do)} to do; {'; '.join(conditions)}\n{tabulate(rows, header, tablefmt='simple')}"
