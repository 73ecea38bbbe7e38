"""The commands that read finished runs, through the command line in this process."""

import csv
import io
from importlib.resources import files

import pytest
from click.testing import CliRunner

from bench.commands.main import main
from tests.results_folder import write_run

GOOD = [[0.9, 0.6, 0.5], [0.85, 0.88, 0.56], [0.8, 0.84, 0.86]]
WORSE = [[0.9, 0.6, 0.5], [0.65, 0.78, 0.46], [0.4, 0.54, 0.66]]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """bench("table", "results") in an empty folder: (exit code, output)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str):
        found = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
        return found.exit_code, found.output

    return call


@pytest.fixture
def results(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / "results", GOOD, seed=seed, images=50, method="cgil")
        write_run(tmp_path / "results", WORSE, seed=seed, images=50, method="coop")
    return tmp_path / "results"


def test_the_gate_passes_unchanged_results_and_fails_worse_ones(bench, results, tmp_path):
    assert bench("gate", results, "--baseline", "baseline.csv", "--update")[0] == 0
    code, output = bench("gate", results, "--baseline", "baseline.csv", "--junit", "gate.xml", "--markdown", "gate.md")
    assert code == 0 and "gate passed" in output
    assert (tmp_path / "gate.xml").exists() and (tmp_path / "gate.md").exists()
    for seed in (0, 1):
        write_run(tmp_path / "degraded", WORSE, seed=seed, images=50, method="cgil")
        write_run(tmp_path / "degraded", WORSE, seed=seed, images=50, method="coop")
    code, output = bench("gate", tmp_path / "degraded", "--baseline", "baseline.csv")
    assert code == 1 and "gate FAILED" in output
    assert bench("gate", results, "--baseline", "absent.csv")[0] == 2


@pytest.mark.parametrize("view", ["summary", "tasks", "matrix", "cost"])
@pytest.mark.parametrize("format", ["plain", "markdown", "latex", "html", "csv", "json"])
def test_every_view_comes_in_every_format(bench, results, view, format):
    code, output = bench("table", results, "--view", view, "--format", format)
    assert code == 0 and "cgil" in output


def test_a_published_matrix_gives_its_published_metrics(bench):
    matrices = files("bench.shipped") / "published" / "mtil_matrices.csv"
    code, output = bench("metrics", matrices, "--format", "csv")
    assert code == 0
    row = next(row for row in csv.DictReader(io.StringIO(output)) if row["matrix"] == "finetune, order I")
    found = [round(100 * float(row[name]), 1) for name in ("mtil_transfer", "mtil_avg", "mtil_last")]
    assert found == [44.6, 55.9, 77.3]  # as ZSCL prints them


def test_comparison_pictures_and_report(bench, results, tmp_path):
    code, output = bench("compare", "cgil", "coop", results)
    assert code == 0 and "too few to say which is better over seeds" in output
    code, output = bench("plot", results, "-o", "pictures", "--kind", "accuracy")
    assert code == 0 and (tmp_path / output.strip()).stat().st_size > 1000
    assert bench("report", results, "-o", "report.html")[0] == 0
    assert "<table" in (tmp_path / "report.html").read_text()
    assert bench("report", "--leaderboard", results)[0] == 0
    assert "ranked by Last" in (tmp_path / "leaderboard.html").read_text()


def test_bad_arguments_are_one_line(bench, results):
    for arguments in (
        ("compare", "cgil", results),
        ("compare", "cgil", "cgli", results),
        ("plot", results, "-o", "p", "--kind", "pie"),
        ("table", results, "--metrics", "lats"),
        ("metrics", results / "absent.csv"),
        ("report", results, "--against", "cgli"),
        ("report", results, "--leaderboard", "--against", "cgil"),
        ("report", results / "absent", "--leaderboard"),
        ("report", results, "--leaderboard", "-o", results),
    ):
        code, output = bench(*arguments)
        assert code == 2 and output.count("\n") == 1, output


FOREIGN = ",A,B,C,average\nA,90,60,50,66.7\nB,85,88,56,76.3\nC,80,84,86,83.3\n"


def test_a_foreign_matrix_stands_beside_own_runs_unranked(bench, results, tmp_path):
    (tmp_path / "other.csv").write_text(FOREIGN.replace("80,84,86", "90,94,96"))
    code, output = bench("table", results, "other.csv")
    (line,) = [line for line in output.splitlines() if line.startswith("other §")]
    assert code == 0 and line.split()[2] == "93.3" and "*" not in line and "read from other.csv" in output
    own = next(row for row in bench("table", results)[1].splitlines() if row.startswith("cgil"))
    assert own.split() in [row.split() for row in output.splitlines()]
    rows = list(csv.DictReader(io.StringIO(bench("table", results, "other.csv", "--format", "csv")[1])))
    assert [(row["method"], row["foreign"]) for row in rows] == [("cgil", "False"), ("coop", "False"), ("other", "True")]
    assert "foreign" not in bench("table", results, "--format", "csv")[1]


@pytest.mark.parametrize("view", ["summary", "tasks", "matrix"])
@pytest.mark.parametrize("format", ["plain", "markdown", "latex", "html", "csv", "json"])
def test_foreign_matrices_come_in_every_view_and_format(bench, results, tmp_path, view, format):
    (tmp_path / "other.csv").write_text(FOREIGN)
    for paths in (["other.csv"], [results, "other.csv"]):
        code, output = bench("table", *paths, "--view", view, "--format", format)
        assert code == 0 and "other" in output


def test_a_foreign_matrix_that_fits_nowhere_has_a_table_of_its_own(bench, results, tmp_path):
    (tmp_path / "small.csv").write_text("90,60\n80,70\n")
    code, output = bench("table", results, "small.csv")
    assert code == 0 and "Measured by other programs; 2 tasks" in output and "none of the tables above" in output


def test_our_own_tables_are_read_back(bench, results, tmp_path):
    for format in ("markdown", "latex"):
        (tmp_path / "own").write_text(bench("table", results, "--view", "matrix", "--format", format)[1])
        code, output = bench("metrics", "own", "--format", "csv")
        first = next(csv.DictReader(io.StringIO(output)))
        assert code == 0 and round(100 * float(first["last"]), 1) == 83.3


def test_several_files_and_standard_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(FOREIGN)
    found = CliRunner().invoke(main, ["metrics", "a.csv", "-", "--format", "csv"], input="90,60\n80,70\n")
    assert [row["matrix"] for row in csv.DictReader(io.StringIO(found.output))][:2] == ["a", "standard input"]
    (tmp_path / "b.csv").write_bytes(b"\x1f\x8b\x08")
    found = CliRunner().invoke(main, ["metrics", "a.csv", "b.csv"])
    assert found.exit_code == 2 and found.output == "bench: b.csv: is compressed with gzip; unpack it and give the file inside\n"
