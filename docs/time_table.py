"""How long the finished runs below some folders took: the sums over all runs of a protocol.

    python docs/time_table.py FOLDER ...

Seconds are those of the runs' manifests, of every run by itself. N jobs that share the cores of a machine take the N-th part
of them, and what it takes to start.
"""

import argparse
import json
from pathlib import Path

from bench.reports.formats import Table, TableCell, write

HEADER = ["protocol", "runs", "preparing (s)", "learning (s)", "scoring (s)", "all (minutes)", "with two jobs (minutes)"]


def row(protocol: str, manifests: list[dict]) -> list[TableCell]:
    costs = [manifest["cost"] for manifest in manifests]
    tasks = [task for cost in costs for task in cost["seconds_per_task"]]
    seconds = [
        sum(cost["seconds_prepare"] for cost in costs),
        sum(task["learn"] for task in tasks),
        sum(task["evaluate"] for task in tasks),
    ]
    minutes = sum(seconds) / 60
    numbers = [*(f"{part:.0f}" for part in seconds), f"{minutes:.0f}", f"{minutes / 2:.0f}"]
    return [TableCell(text) for text in (protocol, str(len(manifests)), *numbers)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    found: dict[str, list[dict]] = {}
    for folder in parser.parse_args().folders:
        for path in sorted(folder.rglob("manifest.json")):
            manifest = json.loads(path.read_text())
            found.setdefault(manifest["identity"]["protocol"], []).append(manifest)
    rows = [row(protocol, manifests) for protocol, manifests in found.items()]
    print(write([Table("Time of finished runs", "from their manifests", HEADER, rows)], "markdown"))


if __name__ == "__main__":
    main()
