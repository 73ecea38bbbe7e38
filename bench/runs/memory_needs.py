"""Can a run fit? What it holds at most, by the sums of its method, against what this machine has, before anything is started.

A warning is for what is sure: a sum counts the parts that grow, and leaves out the rest. A run without a warning may still need
more than there is. Nothing is opened and nothing allocated; what a data set does not say of itself is unknown.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.clip.tower_sizes import tower_sizes
from bench.errors import BenchError
from bench.runs import run_sizes
from bench.runs.estimate import size
from bench.runs.memory_sums import terms_of
from bench.runs.memory_terms import Scale, Term
from bench.runs.preflight import bytes_of_features, free_space
from bench.runs.run import Run
from bench.streams import names
from bench.system.memory import available_memory

SHOWN = 3  # of the largest parts
WORTH_SAYING = 0.02  # of what is needed: a smaller part says nothing


@dataclass(frozen=True)
class Needs:
    """What a run holds at most, the largest parts first. unknown: why nothing can be said."""

    terms: tuple[Term, ...] = ()
    unknown: str = ""

    def host(self, on_gpu: bool) -> float:
        """Bytes of the machine's memory."""
        return sum(term.bytes for term in self.terms if term.host or not on_gpu)

    def device(self, on_gpu: bool) -> float:
        return sum(term.bytes for term in self.terms if not term.host) if on_gpu else 0.0


@dataclass(frozen=True)
class Machine:
    """Bytes that are left. 0: not known."""

    memory: int = field(default_factory=lambda: available_memory())
    device: int = 0


def of_run(run: Run) -> Needs:
    """What it holds, as far as its method and its data sets say."""
    scale = scale_of(run)
    if isinstance(scale, str):
        return Needs(unknown=scale)
    terms = terms_of(run.method, scale)
    if terms is None or run.method_from:
        return Needs(unknown=f"nothing is known of the memory of {run.method}")
    return Needs(tuple(terms))


def scale_of(run: Run) -> Scale | str:
    """What a run's memory grows with, or why that is not known."""
    found = run_sizes.of_run(run)
    if found is None:
        return f"{run.protocol} does not say how many images it has"
    try:
        protocol = names.find(run.protocol_given)
        towers = None if protocol.embeddings else tower_sizes(run.backbone)
        classes = [len(task.labels) for task in protocol.tasks(run.order_seed)]
    except BenchError as error:
        return str(error)
    if towers is None:
        return f"of the size of {'embeddings in a file' if protocol.embeddings else run.backbone} nothing is known"
    kept = protocol.exemplars_total or (protocol.exemplars_per_class or 0) * sum(classes)
    largest = max(classes)
    return Scale(
        sum(classes), found.tasks, found.train, found.train * largest / sum(classes), largest, found.test, kept, towers,
        run.settings, run.processes,
    )  # fmt: skip


def warnings(runs: Sequence[Run], to_do: Collection[str], machine: Machine) -> list[str]:
    """One line for every run that cannot fit, alike ones together; and one for those of which nothing is known."""
    lines: dict[str, int] = {}
    unknown: dict[str, str] = {}
    for run in runs:
        if run.run_id not in to_do:
            continue
        needs = of_run(run)
        if needs.unknown:
            unknown.setdefault(run.method, needs.unknown)
            continue
        for line in _of(run, needs, machine):
            lines[line] = lines.get(line, 0) + 1
    found = [line + (f" ({count} runs)" if count > 1 else "") for line, count in lines.items()]
    if unknown:
        reasons = list(dict.fromkeys(unknown.values()))
        found.append(f"note: whether {_listed(list(unknown))} can fit into memory is unknown: {reasons[0]}")
    return found


def _of(run: Run, needs: Needs, machine: Machine) -> list[str]:
    on_gpu = run.device.startswith("cuda")
    found = []
    for what, wanted, there, terms in (
        ("GPU memory", needs.device(on_gpu), machine.device, [term for term in needs.terms if not term.host]),
        ("memory", needs.host(on_gpu) * (1 if on_gpu else run.processes), machine.memory,
         [term for term in needs.terms if term.host or not on_gpu]),
    ):  # fmt: skip
        if there and wanted > there:
            parts = [term for term in terms if term.bytes >= WORTH_SAYING * wanted][:SHOWN]
            named = ", ".join(f"{size(term.bytes)} {term.what}" for term in parts)
            found.append(
                f"warning: {run.protocol} {run.method} cannot fit: it needs about {size(wanted)} of {what} ({named}), "
                f"and {size(there)} are free; {_remedy(run, parts[0])}"
            )
    return found


def _remedy(run: Run, largest: Term) -> str:
    """What to do about the largest part."""
    if "n x n" in largest.what or "all training images" in largest.what or "list of images" in largest.what:
        return "--limit-train keeps fewer images of a class, or choose another method or a larger machine"
    if "embeddings of the largest" in largest.what:
        return "--limit-train, or a protocol with smaller tasks"
    if "scores of the test" in largest.what:
        return "--limit-test keeps fewer test images"
    if "activations" in largest.what and "accumulate" in run.settings:
        return f"--set {run.method}.accumulate={int(run.settings['accumulate']) * 2}, or gradient_checkpointing=true"
    for name in ("expansion", "projection", "random_features", "samples_per_class"):
        if name in run.settings and ("m x" in largest.what or "D x" in largest.what or "synthetic" in largest.what):
            return f"--set {run.method}.{name}=... makes it smaller (now {run.settings[name]})"
    return "a smaller backbone, another method, or a larger machine"


def embeddings_on_disk(runs: Sequence[Run], cache: Path) -> list[str]:
    """One line where the disk has no room for the embeddings that these runs read, if none of them is there yet."""
    wanted = bytes_of_features([run for run in runs if _reads_embeddings(run)])
    _, free = free_space(cache)
    if wanted <= free:
        return []
    return [
        f"warning: {cache} cannot hold the embeddings of all images: about {size(wanted)} are wanted, {size(free)} are free; "
        "name another folder with --cache-dir"
    ]


def _reads_embeddings(run: Run) -> bool:
    """Does its method learn from stored embeddings, or score them?"""
    return run.method in ("zero-shot", "continual-clip") or any("embeddings of" in term.what for term in of_run(run).terms)


def _listed(methods: Sequence[str]) -> str:
    return ", ".join(methods[:5]) + (f" and {len(methods) - 5} more" if len(methods) > 5 else "")
