"""Tables of what a campaign has measured: CSV files beside the steps, and what of them is kept in measured/gpu/, for the page."""

import contextlib
import csv
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from bench.errors import BenchError
from bench.system.files import write_atomically
from tests.benchmarks.gpu.kept import Result
from tests.benchmarks.gpu.steps import GROUPS

PAGE, SHOWS = Path(__file__).parents[3] / "docs" / "performance.md", "python -m tests.benchmarks.gpu --show "
KEPT = Path(__file__).parents[1] / "measured" / "gpu"  # a folder for each device
CONDITIONS = ("device", "torch", "size")  # columns of every row
NAMES = ("steps", "machine", "methods", "tests", "phases", "pixels", "pairs", "jobs", "candidates")


def write(folder: Path, results: Sequence[Result]) -> None:
    """One CSV file for each table that there is something of."""
    by_table: dict[str, list[dict[str, str]]] = {"steps": _summary(results)}
    for result in sorted(results, key=lambda result: (GROUPS.index(result.group), result.step)):
        conditions = {"device": result.machine.device, "torch": result.machine.torch, "size": result.machine.size}
        for row in result.rows:
            by_table.setdefault(result.table, []).append(row | conditions)
    for name, rows in by_table.items():
        header = list(dict.fromkeys(key for row in rows for key in row if key not in CONDITIONS))
        text = io.StringIO()
        writer = csv.DictWriter(text, [*header, *CONDITIONS], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(folder / f"{name}.csv", text.getvalue())


def _summary(results: Sequence[Result]) -> list[dict[str, str]]:
    """So many steps of each group ended so."""
    rows = []
    for group in GROUPS:
        own = [result for result in results if result.group == group]
        if not own:
            continue
        count = {status: sum(result.status == status for result in own) for status in ("done", "not applicable", "failed")}
        rows.append(
            {"steps": group}
            | {status: str(number) for status, number in count.items()}
            | {"seconds": f"{sum(result.seconds for result in own):.0f}"}
            | {"device": own[0].machine.device, "torch": own[0].machine.torch, "size": own[0].machine.size}
        )
    return rows


def keep(folder: Path) -> Path:
    """Copy the tables of one device to where they are committed."""
    found = sorted(folder.glob("*.csv"))
    if not found:
        raise BenchError(f"{folder}: no table is there; name the folder of a device in that of a campaign")
    place = KEPT / folder.name
    place.mkdir(parents=True, exist_ok=True)
    for path in found:
        shutil.copyfile(path, place / path.name)
    return place


def renew_page(page: Path = PAGE) -> None:
    """Put what is kept into the page's blocks; its other tables stay as they are."""
    from docs.regenerate import BLOCK, filled

    text, shown = page.read_text(), {}
    for block in BLOCK.finditer(text):
        command = block["command"] or ""
        if command.startswith(SHOWS):
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                show(command.removeprefix(SHOWS))
            shown[command] = printed.getvalue().strip("\n") + "\n"
    write_atomically(page, filled(text, shown))


def show(name: str) -> None:
    """The table of every device that has been measured; what they have in common in a line above."""
    found = sorted(KEPT.glob(f"*/{name}.csv"))
    if not found:
        print("(not measured yet)")
    for path in found:
        rows = list(csv.DictReader(path.read_text().splitlines()))
        versions = ", ".join(sorted({row["torch"] for row in rows}))
        what = "proof run of the command with small sizes, NO GPU measurement" if rows[0]["size"] == "small" else "full sizes"
        print(f"\n{rows[0]['device']}, torch {versions}: {what}\n")
        own = [{key: value for key, value in row.items() if key not in CONDITIONS} for row in rows]
        print(tabulate(own, "keys", "github", disable_numparse=True))
