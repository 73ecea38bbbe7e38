"""What will be run: protocols x methods x order seeds x seeds, each with its hyper-parameters and its run id.

A plan is made of facts (bench/runs/facts.py) and opens no image; what runs import is loaded when they start.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from bench.errors import BenchError
from bench.learning import recipes
from bench.learning.recipes import Recipe
from bench.learning.stated import not_dividable
from bench.runs import accelerators, assignments, embedded
from bench.runs.assignments import Assignment
from bench.runs.facts import Facts
from bench.runs.request import Request
from bench.runs.run import Run
from bench.streams import names as protocol_names
from bench.streams.protocol import Protocol
from bench.system import registry


def build(request: Request, facts: Facts, other_methods: Sequence[str] = ()) -> tuple[list[Run], list[str]]:
    """The runs in the order in which they will be made, and notes for the user.

    Device and precision of the request are those of the machine, not "auto". A change may be meant for `other_methods`, which
    the same study names elsewhere.
    """
    accelerators.refuse_device(request.accelerate, request.device)
    ablations = [assignments.parse(one, "--ablate") for one in request.ablate]
    protocols = [facts.protocol(given) for given in request.protocols]
    chosen, notes = [], []
    for protocol in protocols:
        names, left_out = choose_methods(request.methods, protocol, facts)
        if request.processes > 1:
            names, undivided = _dividable(names, request, facts)
            left_out += undivided
        chosen.append(names)
        notes += left_out
    others = facts.methods().names if "all" in other_methods else other_methods
    known = dict.fromkeys(map(registry.name_of, [*itertools.chain(*chosen), *others]))
    assignments.check_methods([*request.set, *itertools.chain(*request.grid), *ablations], list(known))
    of_files = [recipe for path in request.recipe for recipe in recipes.read(path)]
    runs = []
    chosen_by_name = list(request.methods) != ["all"]
    for given, protocol, names in zip(request.protocols, protocols, chosen):
        notes += [] if request.synthetic else protocol.notes
        if protocol.fixed_order and list(request.order_seeds) != [0]:
            notes.append(f"{protocol.name} has one fixed order: order seeds other than 0 are left out")
        tasks, content = _tasks(protocol, request.order_seeds), protocol.content
        for order_seed in tasks:
            facts.refuse_undivided(given, order_seed, request.synthetic)
        clip, about = embedded.conditions(request, protocol, facts)
        notes += about
        unfit = embedded.Unfit(protocol, chosen_by_name)
        images = "" if request.synthetic else facts.own_images(given, request.limit_train, request.limit_test)
        notes += _of_other_versions(of_files, names, protocol, facts)
        for order_seed, found in itertools.product(tasks, names):
            name = registry.name_of(found)
            recipe = recipes.chosen(of_files, name, protocol.known_as)
            for variant, seed in itertools.product(_variants(name, request, ablations), request.seeds):
                hyper, about = embedded.settings(found, protocol, [one.change for one in variant], facts, recipe)
                notes += about
                if hyper.wanting:
                    notes.append(_wanting(name, protocol, hyper.wanting, chosen_by_name))
                    continue
                if lacking := embedded.lacking(hyper.needs, protocol):
                    unfit.note(name, lacking)
                    continue
                runs.append(
                    Run(
                        protocol=protocol.name,
                        protocol_version=protocol.version,
                        method=name,
                        method_version=facts.method(found).version,
                        settings=hyper.settings,
                        overrides=hyper.overrides,
                        backbone=clip.backbone,
                        pretrained=clip.pretrained,
                        weights=clip.weights,
                        device=request.device,
                        order_seed=order_seed,
                        seed=seed,
                        limit_train=request.limit_train,
                        limit_test=request.limit_test,
                        out=request.out,
                        precision=clip.precision,
                        accelerate=request.accelerate,
                        synthetic=request.synthetic,
                        tasks=tasks[order_seed],
                        given=protocol_names.from_anywhere(given),
                        method_from="" if found == name else found,
                        content=content,
                        images=images,
                        validation=protocol.validation.text if protocol.validation else "",
                        processes=request.processes,
                        keep_model=request.keep_model,
                    )
                )
        notes += unfit.said()
    return without_repeats(runs), notes


def _of_other_versions(found: Sequence[Recipe], names: Sequence[str], protocol: Protocol, facts: Facts) -> list[str]:
    """Notes on recipes that were found with another version of their method."""
    own = [one for one in found if one.method in names and one.fits(one.method, protocol.name) and one.method_version]
    versions = [(one, facts.method(one.method).version) for one in own]
    return [f"{one.where}: found with version {one.method_version} of it, this is {now}" for one, now in versions
            if now != one.method_version]  # fmt: skip


def refuse_idle_recipes(requests: Sequence[Request], runs: Sequence[Run]) -> None:
    """A recipe file that is for none of the runs is a mistake, and would not be seen in the results."""
    for path in dict.fromkeys(path for request in requests for path in request.recipe):
        found = recipes.read(path)
        if not any(one.fits(run.method, run.protocol) for one in found for run in runs):
            meant = ", ".join(f"{one.method} on {one.protocol}" for one in found[:3]) or "nothing"
            more = ", ..." if len(found) > 3 else ""
            raise BenchError(f"{path}: a recipe for {meant}{more}; none of these runs is that")


def _wanting(method: str, protocol: Protocol, fields: Sequence[str], chosen_by_name: bool) -> str:
    """Why a method cannot run: an error if somebody asked for it, else a note that it is left out."""
    options = " ".join(f"--set {method}.{field}=..." for field in fields)
    said = f"it needs {options} on {protocol.name} (bench show {method})"
    if chosen_by_name:
        raise BenchError(f"{method}: {said}")
    return f"{method} left out: {said}"


def without_repeats(runs: Iterable[Run]) -> list[Run]:
    """Each run once, where it came first; its model is kept if any of its equals wants it."""
    found: dict[str, Run] = {}
    for run in runs:
        first = found.setdefault(run.run_id, run)
        if run.keep_model and not first.keep_model:
            found[run.run_id] = replace(first, keep_model=True)
    return list(found.values())


def _tasks(protocol: Protocol, order_seeds: Sequence[int]) -> dict[int, int]:
    """Order seed -> number of tasks. An order that does not exist is said here, before anything is run."""
    return {order_seed: len(protocol.tasks(order_seed)) for order_seed in ((0,) if protocol.fixed_order else order_seeds)}


def choose_methods(names: Sequence[str], protocol: Protocol, facts: Facts) -> tuple[list[str], list[str]]:
    """The named methods ("all": every one that can run the protocol's scenario), and notes on those left out.

    One that is not registered is named as it is found from every working folder.
    """
    kind = protocol.kind
    if list(names) != ["all"]:
        named = list(dict.fromkeys(map(registry.from_anywhere, names)))
        for name in named:
            if kind not in facts.method(name).scenarios:
                raise BenchError(f"{name} cannot run {protocol.name}: it is not defined for {kind} streams")
        return named, []
    every = facts.methods()
    chosen = [name for name in every.names if kind in facts.method(name).scenarios]
    left_out = [f"{name} left out: it is not defined for {kind} streams" for name in every.names if name not in chosen]
    floor_first = sorted(chosen, key=lambda name: (name != "zero-shot", name))  # every table is read against the floor
    return floor_first, [*every.broken, *left_out]


def _dividable(names: Sequence[str], request: Request, facts: Facts) -> tuple[list[str], list[str]]:
    """Those whose runs can be divided over several processes; the others are left out, or refused if somebody named them."""
    others = [name for name in names if not facts.method(name).several_processes]
    why = not_dividable(request.processes)
    if others and list(request.methods) != ["all"]:
        raise BenchError(f"{registry.name_of(others[0])}: {why}")
    return [name for name in names if name not in others], [f"{', '.join(others)} left out: {why}"] if others else []


def _variants(method: str, request: Request, ablations: Sequence[Assignment]) -> list[list[Assignment]]:
    """The sets of changes that the method is run with."""
    own = [one for one in request.set if one.method == method]
    axes = [axis for axis in request.grid if axis and axis[0].method == method]
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
        method = f"{run.method} {run.overrides}" if run.overrides else run.method
        extra = [cells[place] for cells in columns.values()]
        rows.append([run.protocol, method, run.order_seed, run.seed, run.run_id, statuses[place], *extra])
    conditions = dict.fromkeys(
        f"backbone {run.backbone} ({run.weights_label}) on {run.device} in {run.precision}"
        f"{'' if run.accelerate == 'none' else f', accelerated by {run.accelerate}'}"
        f"{f', {run.processes} processes a run' if run.processes > 1 else ''}"
        f"{', SYNTHETIC images' if run.synthetic else ''}, results in {run.out}"
        for run in runs
    )
    header = ["protocol", "method", "order", "seed", "run", "status", *columns]
    counted = f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
    return f"{counted}, {len(to_do)} to do; {'; '.join(conditions)}\n{tabulate(rows, header, tablefmt='simple')}"
