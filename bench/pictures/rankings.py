"""Records -> critical-difference diagrams: over protocols ("ranking"), or over runs ("critical-difference")."""

from collections.abc import Sequence
from functools import partial

from bench.errors import BenchError
from bench.pictures import ranks
from bench.pictures.form import Form
from bench.pictures.picture import AS_EVER, Picture
from bench.reports import ranking, statistics
from bench.reports.formats import counted
from bench.reports.ranking import LEVEL, Ranking
from bench.results.loaded import Results

HELD_OUT = "VALIDATION: scored on training images held out, not on test images"
TITLES = {
    "ranking": "Mean rank of each method, 1 is best",
    "critical-difference": "Mean rank of each method over runs, 1 is best",
}
OVER_PROTOCOLS, OVER_RUNS = TITLES


def critical_difference(
    names: Sequence[str],
    mean_ranks: Sequence[float],
    cd: float,
    cliques: Sequence[tuple[int, int]],
    protocols: Sequence[str] = (),
    validation: bool = False,
    said: str = "",
    kind: str = OVER_PROTOCOLS,
    form: Form = AS_EVER,
) -> Picture:
    """Mean ranks of methods, 1 = best, in ascending order. cliques: (first, last) positions in that order of methods that
    cannot be told apart, as bench.reports.statistics.cliques gives them. said: n and p, for the note."""
    warning = HELD_OUT if validation else ""
    note = "; ".join(filter(None, [said, "a bar joins methods that cannot be told apart", warning]))
    shown = {part for name in form.highlight for part in names if name in (part, part.split(" (")[0])}
    grey = set(names) - shown if form.highlight else set()

    draw = partial(ranks.critical_difference, names, mean_ranks, cd, cliques, grey)
    return Picture(kind, kind, TITLES[kind], ", ".join(protocols), note, draw, warning)


def ranking_picture(found: Results, form: Form = AS_EVER) -> Picture | None:
    """The critical-difference diagram over all protocols; None where there are too few of them, or no single ranking."""
    if found.table["protocol"].nunique() < statistics.MIN_BLOCKS:
        return None
    return _or_none(found, OVER_PROTOCOLS, form)


def over_runs_picture(found: Results, form: Form = AS_EVER) -> Picture | None:
    """The same with a run in the place of a protocol: streams x class orders x seeds; None where there are too few of them."""
    return _or_none(found, OVER_RUNS, form)


def _or_none(found: Results, kind: str, form: Form) -> Picture | None:
    try:
        return asked_for(found, kind, form)
    except BenchError:
        return None


def asked_for(found: Results, kind: str, form: Form = AS_EVER) -> Picture:
    """One of the two; BenchError that says what is missing where it cannot be drawn."""
    protocols = found.table["protocol"].nunique()
    if kind == OVER_PROTOCOLS and protocols < statistics.MIN_BLOCKS:
        raise BenchError(f"no ranking picture: it needs {statistics.MIN_BLOCKS} protocols or more, run with the same methods")
    ranked = ranking.rank(found.table, over_runs=kind == OVER_RUNS)
    if ranked.cd is None:
        seeds = ",".join(map(str, range(statistics.MIN_BLOCKS)))
        raise BenchError(
            f"no {kind} picture: it needs {statistics.MIN_BLOCKS} or more streams x class orders x seeds that the methods have "
            f"in common, {len(ranked.blocks)} found; run more of them (bench run --seeds {seeds})"
        )
    held_out = ranked.validation
    return critical_difference(
        ranked.names, list(ranked.ranks), ranked.cd, ranked.cliques, ranked.protocols, held_out, _said(ranked, kind), kind, form
    )


def _said(ranked: Ranking, kind: str) -> str:
    """How many blocks there are, what Friedman's test says of them, and who was left out."""
    n = counted(len(ranked.blocks), "protocol")
    if kind == OVER_RUNS:
        n = f"{len(ranked.blocks)} runs of each method on {counted(len(ranked.protocols), 'stream')} (class orders x seeds)"
    assert ranked.p is not None  # there is a critical difference
    p = f"Friedman p {'<' if ranked.p < 0.001 else '='} {max(ranked.p, 0.001):.3f}"
    verdict = f"{p}: no evidence that the methods differ" if ranked.p >= LEVEL else f"{p}, Nemenyi's critical difference at 5%"
    return "; ".join([f"n = {n}", verdict, *_shortened(ranked.notes)])


def _shortened(notes: Sequence[str]) -> list[str]:
    """Notes that name many methods would take more room than the picture: then it says how many."""
    found = []
    for note in notes:
        reason, _, names = note.partition(": ")
        count = names.count(", ") + 1
        found.append(f"{reason}: {count} methods" if reason.startswith("left out") and count > 4 else note)
    return found
