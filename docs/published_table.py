"""What a paper reports, and whether this harness can be run for it.

    python docs/published_table.py zscl|clap|cgil [--per-dataset]

Rows come from results/published/*.csv as they were read there; nothing is computed. The last column says whether a run with
`bench run` can be set beside the row, or why it cannot.
"""

import argparse
import functools

from bench.errors import BenchError
from bench.reports.formats import Table, TableCell, write
from bench.results import published
from bench.results.metrics import METRICS
from bench.streams.names import find
from bench.system import registry

PAPERS = {"zscl": "ZSCL ", "clap": "CLAP4CLIP ", "cgil": "CGIL "}  # how `reported_in` begins
GROUP = ["protocol", "method", "backbone", "table", "certainty"]


@functools.cache
def lacking(method: str, protocol: str, backbone: str, metric: str) -> str:
    """Why no run can be set beside a published number; empty if one can."""
    if method not in registry.names("method"):
        return "no such method here"
    try:
        find(protocol)
    except BenchError:
        return "no such protocol here"
    if not backbone.startswith("ViT-"):
        return "another backbone than CLIP"
    if metric.split("/")[0] not in METRICS:
        return "its metric is not stated" if metric == "Accuracy" else "not an accuracy"
    return ""


def rows(paper: str, per_dataset: bool = False) -> list[list[str]]:
    """(protocol, method, what was reported, backbone, where, certainty, can it be run here?) of every row of a paper."""
    table = published.load()
    table = table[table["reported_in"].str.startswith(PAPERS[paper])]
    if not per_dataset:
        table = table[~table["metric"].str.contains("/")]
    found = []
    for (protocol, method, backbone, place, certainty), own in table.groupby(GROUP, sort=False):
        numbers = ", ".join(f"{title(metric)} {value:g}" for metric, value in zip(own["metric"], own["value"]))
        reasons = {lacking(method, protocol, backbone, metric) for metric in own["metric"]}
        found.append([protocol, method, numbers, backbone, place, certainty, ", ".join(sorted(reasons)) or "yes"])
    return found


def title(metric: str) -> str:
    """A metric as tables head it; names that are not the harness's own stay as they are."""
    name, slash, dataset = metric.partition("/")
    return (METRICS[name].title if name in METRICS else name) + slash + dataset


def render(paper: str, per_dataset: bool = False) -> str:
    header = ["protocol", "method", "reported", "backbone", "where", "certainty", "runs here"]
    cells = [[TableCell(text) for text in row] for row in rows(paper, per_dataset)]
    sources = published.load()["reported_in"]
    (name,) = sources[sources.str.startswith(PAPERS[paper])].unique()
    reading = "Percent, as printed" + ("" if per_dataset else "; numbers of single data sets left out")
    return write([Table(f"Numbers reported in {name}", f"{reading}.", header, cells, left=len(header))], "markdown")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paper", choices=PAPERS)
    parser.add_argument("--per-dataset", action="store_true", help="numbers of single data sets, too")
    chosen = parser.parse_args()
    print(render(chosen.paper, chosen.per_dataset))


if __name__ == "__main__":
    main()
