"""One self-contained HTML page from a results folder: tables, charts, comparisons, manifests, and how to repeat every run.

It holds no date, so the same results give the same bytes. bench.pictures.page.template says what keeps a page closed.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError, unknown_name
from bench.pictures import plots
from bench.pictures.page.looks import looks
from bench.pictures.page.made_with import made_with
from bench.pictures.page.places import Place, places_of
from bench.pictures.page.sections import ListedRun as ListedRun  # its former name leads here
from bench.pictures.page.sections import matrix_note, section
from bench.pictures.page.template import fill
from bench.pictures.style import GRID, INK, MUTED, SERIES, encode, look
from bench.reports.against import final_metric
from bench.results.groups import arranged
from bench.results.loaded import Results, load
from bench.results.records import restrictions
from bench.results.run_table import values
from bench.system.files import write_atomically
from bench.system.progress import followed


@dataclass(frozen=True)
class Drawing:
    """A picture inside the page."""

    title: str
    note: str
    svg: str


def write(paths: Iterable[Path], output: Path, reference: str | None = None) -> Path:
    """Write the report of the runs at or below the paths. reference: whom the others are compared with; None: the best."""
    refuse_folder(output, "report.html")
    paths = list(paths)
    write_atomically(output, render(load(paths), places_of(paths), reference))
    return output


def refuse_folder(output: Path, instead: str) -> None:
    if output.is_dir():
        raise BenchError(f"{output}: is a folder; -o wants the name of a file, for instance {output / instead}")


def render(results: Results, places: Mapping[str, Place] | None = None, reference: str | None = None) -> str:
    """The page. places: where the runs lay, by run id."""
    groups = arranged(results)
    methods = list(dict.fromkeys(own.label for group in groups for own in group.methods))
    if reference is not None and reference not in methods:
        raise unknown_name("method of these results", reference, methods)
    look_of = looks(groups)
    runs = values(results.table, sorted({final_metric(group.conditions["scenario"]) for group in groups}))
    followed_groups = followed(groups, "sections", len(groups))
    return fill(
        "report.html",
        sections=[section(i, own, results, look_of, runs, places or {}, reference) for i, own in enumerate(followed_groups)],
        ranking=_ranking(results),
        runs=len(set(results.table["run_id"])),
        methods=sorted(methods),
        made_with=made_with(results.manifests.values()),
        matrix_note=matrix_note,
        restrictions=restrictions,
    )


# -- the picture that matplotlib draws --------------------------------------------------------------------------

THEME = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)"} | {
    colour: f"var(--series-{i + 1})" for i, colour in enumerate(SERIES)
}


def _ranking(results: Results) -> Drawing | None:
    """The critical-difference diagram over protocols, where there are enough of them."""
    picture = plots.ranking_picture(results)
    if picture is None:
        return None
    with look(salt=picture.stem, editable_text=True):
        text = encode(picture.draw(), "svg", transparent=True).decode()
    return Drawing(picture.title, picture.note, adapt(text, f"{picture.title}: {picture.where}; {picture.note}."))


def adapt(svg: str, description: str) -> str:
    """An SVG file as a part of a page: no prologue, no metadata, no ids but those referred to, colours as variables.

    Trusted afterwards: matplotlib has escaped every text in it, and the description is escaped here.
    """
    from markupsafe import Markup, escape

    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in referred else "", svg)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda match: THEME.get(match[0], match[0]), svg)
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    assert size is not None  # matplotlib says how large the picture is
    opening = f'<svg role="img" aria-label="{escape(description)}" style="max-width: {float(size[1]) * 4 / 3:.0f}px"'
    svg = svg.replace(size[0], "", 1).replace("<svg", opening, 1)
    return Markup(re.sub(r"\n\s*\n", "\n", svg))
