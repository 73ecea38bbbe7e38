"""One self-contained HTML page from a results folder: tables, pictures, manifests, and how to repeat every run.

The page loads nothing: styles, the sorting script and all pictures (SVG) are inside it, and its content security policy
forbids everything else, even scripts other than its own. Whatever comes from results is escaped by the template engine.
It holds no date, so the same results give the same bytes.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from bench.errors import BenchError
from bench.pictures import plots
from bench.pictures.file_names import slug
from bench.pictures.page.reproduction import command
from bench.pictures.style import GRID, INK, MUTED, SERIES, encode, look
from bench.reports import tables
from bench.reports.costs import cost_table
from bench.reports.formats import INDENT, Table
from bench.results import published
from bench.results.groups import Group, MethodRuns, arranged
from bench.results.loaded import Results, load
from bench.results.metrics import DEFAULTS, METRICS
from bench.results.records import restrictions
from bench.system.files import write_atomically
from bench.system.progress import followed
from bench.system.version import VERSION

SURE = ("ece", "auroc", "aupr", "fpr95")  # how far a method knows what it knows: metrics of per-image scores


@dataclass(frozen=True)
class ListedRun:
    """One run, as the page lists it."""

    run_id: str
    title: str
    command: str
    manifest: str  # JSON; empty if the records came without one


@dataclass(frozen=True)
class Drawing:
    """A picture inside the page."""

    title: str
    note: str
    svg: str


@dataclass
class Section:
    """Everything about one group."""

    anchor: str
    group: Group
    summary: Table
    per_task: list[Table]
    certainty: Table | None
    cost: Table | None
    meanings: dict[str, str]  # title of a column -> what it is
    drawings: dict[str, list[Drawing]]  # kind -> pictures
    runs: dict[str, list[ListedRun]] = field(default_factory=dict)  # label of a method -> its runs


def write(paths: Iterable[Path], output: Path) -> Path:
    """Write the report of the runs at or below the paths."""
    if output.is_dir():
        raise BenchError(f"{output}: is a folder; -o wants the name of a file, for instance {output / 'report.html'}")
    write_atomically(output, render(load(paths)))
    return output


def render(results: Results) -> str:
    """The page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bench.pictures.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = files("bench.pictures.page").joinpath("report.js").read_text(encoding="utf-8")
    style = files("bench.pictures.page").joinpath("report.css").read_text(encoding="utf-8")
    groups = arranged(results)
    return environment.get_template("report.html").render(
        sections=[_section(i, group, results, groups) for i, group in enumerate(followed(groups, "sections", len(groups)))],
        ranking=_ranking(results),
        runs=len(set(results.table["run_id"])),
        methods=len({own.label for group in groups for own in group.methods}),
        version=VERSION,
        indent=INDENT,
        restrictions=restrictions,
        script=script,
        style=style,
        # a policy that names the script by its hash: nothing else can run, whatever stands in the results
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _section(number: int, group: Group, results: Results, groups: list[Group]) -> Section:
    own = results.table[results.table["run_id"].isin(group.run_ids)]
    papers = published.load()
    papers = papers if published.beside(papers, group.conditions) else None
    summary = tables.build(own, published=papers)[0]
    has_samples = any(results.samples_of(run_id) is not None for run_id in group.run_ids)
    shown = [*DEFAULTS[group.conditions["scenario"]], *(SURE if has_samples else ())]
    drawings: dict[str, list[Drawing]] = {}
    for picture in followed(plots.of_group(group, results, plots.method_styles(groups)), f"pictures of {group.protocol}"):
        drawings.setdefault(picture.kind, []).append(inline(picture))
    return Section(
        anchor=f"{number + 1}-{slug(group.protocol)}",
        group=group,
        summary=summary,
        per_task=tables.build(own, view="tasks"),
        certainty=tables.build(own, metrics=list(SURE), samples_of=results.samples_of)[0] if has_samples else None,
        cost=cost_table(group, results),
        meanings={METRICS[name].title: METRICS[name].summary for name in shown},
        drawings=drawings,
        runs={own.label: _runs(own, results) for own in group.methods},
    )


def _runs(own: MethodRuns, results: Results) -> list[ListedRun]:
    found = []
    for row in own.table.to_dict("records"):
        manifest = results.manifests.get(row["run_id"], {})
        text = json.dumps(manifest, indent=1, ensure_ascii=False) if manifest else ""
        title = f"order seed {row['order_seed']}, seed {row['seed']}"
        found.append(ListedRun(row["run_id"], title, command(row, manifest), text))
    return found


def _ranking(results: Results) -> Drawing | None:
    """The critical-difference diagram over protocols, where there are enough of them."""
    picture = plots.ranking_picture(results)
    return inline(picture) if picture else None


# -- pictures ---------------------------------------------------------------------------------------------------

THEME = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)"} | {
    colour: f"var(--series-{i + 1})" for i, colour in enumerate(SERIES)
}


def inline(picture: plots.Picture) -> Drawing:
    """A picture as an SVG element whose colours follow the page: light or dark."""
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
