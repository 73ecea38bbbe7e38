"""The commands that read finished runs, through the command line in this process."""

import csv
import io
from importlib.resources import files

import pytest
from click.testing import CliRunner

from bench.cli import main
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
    matrices = files("bench.reference") / "published" / "mtil_matrices.csv"
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


def test_bad_arguments_are_one_line(bench, results):
    for arguments in (
        ("compare", "cgil", results),
        ("compare", "cgil", "cgli", results),
        ("plot", results, "-o", "p", "--kind", "pie"),
        ("table", results, "--metrics", "lats"),
        ("metrics", results / "absent.csv"),
    ):
        code, output = bench(*arguments)
        assert code == 2 and output.count("\n") == 1, output
