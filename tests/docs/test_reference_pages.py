"""Pages that say what is there: they agree with the code, and what they show is what their commands print now."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from safetensors.numpy import load_file

import bench
from bench.clip import mini
from bench.reports.formats import write
from bench.results import paper_tables, records, worked_examples
from bench.results.metrics import METRICS
from bench.runs import failures
from bench.system import registry
from tests.bench import small_runs
from tests.docs import page_commands

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"


def script(name: str):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def rows_below(text: str, heading: str) -> list[str]:
    """The first cells of the table in a section, without backticks; a cell may name several things."""
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


# -- metrics ----------------------------------------------------------------------------------------------------


def test_every_metric_of_a_matrix_has_a_worked_example_that_the_page_shows():
    examples, text = script("metrics_examples"), page("metrics.md")
    rows = examples.worked(DOCS / "examples" / "three-tasks.csv")  # an error if arithmetic and harness differ
    assert {row[0] for row in rows} == {name for name, metric in METRICS.items() if metric.needs != "samples"}
    for name, better, _, arithmetic, value in rows:
        assert re.search(rf"^\| `{name}` \| {better} \| .* \| `{re.escape(arithmetic)}` \| {value} \|$", text, re.M), name
        assert float(value) == worked_examples.of(name).value  # `bench show` has the matrix of the page


def test_the_arithmetic_of_the_examples_is_arithmetic_only():
    assert worked_examples.value_of("(max(90, 92) - 80) / 2") == 6
    for text in ("__import__('os')", "A11 + 1", "min(1, 2)"):
        with pytest.raises(bench.errors.BenchError, match="plain arithmetic"):
            worked_examples.value_of(text)


def test_examples_that_disagree_are_an_error():
    with pytest.raises(bench.errors.BenchError, match="arithmetic gives"):
        worked_examples.agreed("last", 80.0, 80.1)


def test_the_metrics_page_names_every_metric_and_shows_its_file():
    text = page("metrics.md")
    named = set(re.findall(r"`(\w+)`", text))
    assert {name for name in METRICS if not name.endswith(("_max_softmax", "_entropy"))} <= named
    assert (DOCS / "examples" / "three-tasks.csv").read_text() in text
    empty = script("metrics_examples").empty()
    assert all(f"| `{row[0]}` | {' | '.join(row[1:])} |" in text for row in empty[1:])


# -- results ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_on_results_names_what_a_run_writes(tmp_path):
    run = small_runs.small_run("zero-shot", tmp_path / "results")
    small_runs.execute(run, tmp_path / "cache")
    text = page("results-format.md")
    # of a run that another version has begun, of one on validation images, accelerated, or made by several processes
    only_sometimes = {"begun_in", "validation", "accelerated", "processes"}
    assert set(rows_below(text, "manifest.json")) - {"settings"} - only_sometimes == set(small_runs.manifest(run))
    assert all(f"| {name} |".replace("_", r"\_") in text for name in records.COLUMNS)
    scores = {name.split("/")[0] for name in rows_below(text, "samples.safetensors")}
    assert scores == {"prediction", "confidence", "entropy", "energy", "labels"}


def test_the_page_on_results_names_what_a_failure_writes(tmp_path):
    run = small_runs.small_run("zero-shot", tmp_path)
    failures.record(run, failures.of_machine("killed"))
    found = json.loads((run.files.failure).read_text())
    text = page("results-format.md")
    assert set(rows_below(text, "failure.json")) == set(found)
    assert all(f"`{name}`" in text for name in found["attempts"][0])


def test_the_page_on_tuning_shows_what_the_recipes_that_ship_say():
    assert script("recipes_table").render().strip() in page("tuning.md")


# -- papers -----------------------------------------------------------------------------------------------------


def test_the_page_on_reproducing_is_made_from_the_study_files():
    text, tables = page("reproducing.md"), script("paper_tables")
    assert tables.overview() in text
    shown = re.findall(r"<!-- output: python docs/paper_tables.py (\S+) -->", text)
    assert set(shown) >= {"zscl-table3", "zscl-order2", "clap-table1", "cgil-table", "xtail-16shot"}
    assert all(tables.render(name) in text for name in shown)
    assert set(re.findall(r"bench reproduce ([\w-]+)", text)) <= {"TABLE", *paper_tables.names()}


def test_every_method_has_its_paper_and_its_conformance_on_a_page():
    citations, conformance = script("citations"), script("conformance_table")
    text, checked = page("citing.md"), page("conformance.md")
    for name, statement in citations.statements().items():
        assert name in text and f"| {name} |".replace("_", r"\_") in checked
        paper = citations.parse(statement)
        assert paper or not statement.startswith('"')
        assert not paper or citations.bibtex(citations.papers()[paper.key]) in text
    assert "arrays are compared" in conformance.vectors(conformance.TESTS / "vectors").caption
    assert all(write([table], "markdown") in checked for table in (conformance.code(), conformance.errors()))
    compared = conformance.methods().caption.split(" methods")[0]  # "30 of 40"
    readme = (ROOT / "README.md").read_text()
    assert readme.count(f"{compared} methods") == 2 and f"| methods | {compared.split()[-1]} |" in readme


def test_bibtex_claims_what_the_class_says():
    citations = script("citations")
    paper = citations.parse('"A Title", Wang et al., CVPR 2023, arXiv 2305.11488')
    assert paper == citations.Paper("2305.11488", "A Title", "Wang et al.", "CVPR 2023", "2023")
    assert "author = {Wang and others}" in citations.bibtex(paper) and "note = {CVPR 2023}" in citations.bibtex(paper)
    assert citations.parse('"A Title", Ding et al., 2022, arXiv 2207.09248').venue == ""
    assert citations.parse("folklore") is None


def test_a_paper_without_an_arxiv_number_has_an_entry_without_one():
    citations = script("citations")
    paper = citations.parse('"On a New Thing: With Words", Wang et al., CVPR 2026')
    assert paper == citations.Paper("", "On a New Thing: With Words", "Wang et al.", "CVPR 2026", "2026")
    entry = citations.bibtex(paper)
    assert entry.startswith("@misc{cvpr2026:on-a-new-thing,") and "arXiv" not in entry and "eprint" not in entry


# -- the mini world ---------------------------------------------------------------------------------------------


def test_the_size_of_the_mini_model_is_what_its_page_says():
    arrays = load_file(mini.WEIGHTS)
    tokens = len(arrays.pop("token_embedding.trained_ids"))
    parameters = sum(array.size for array in arrays.values())
    assert f"{parameters / 1e6:.1f} million stored parameters" in page("mini-world.md")
    assert f"It knows {tokens} tokens" in page("mini-world.md")


# -- the picture, the licence, versions -------------------------------------------------------------------------


def test_the_picture_is_what_its_script_draws():
    architecture = script("architecture")
    assert architecture.FILE.read_text() == architecture.draw()
    with pytest.raises(ValueError, match="needs more than"):
        architecture.text(0, 0, "a text that is too long", "text", 50)


def test_the_picture_and_its_page_name_modules_that_exist():
    text = page("architecture.md")
    assert all((ROOT / name).exists() for name in re.findall(r"`((?:bench|methods|protocols|tests)/[\w/.]+)`", text))
    drawn = set(re.findall(r"(\w+\.py)", page("architecture.svg")))
    assert drawn and all((ROOT / "bench" / name).exists() for name in drawn)


def test_licence_citation_and_changelog_agree_with_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation) and citation["cff-version"] == "1.2.0"
    assert citation["version"] == bench.__version__ and citation["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")
    assert "license_expression = MIT" in (ROOT / "setup.cfg").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+?),? ", changes, re.M)[1] == bench.__version__
    raised = [name for name in registry.names("method") if registry.load("method", name).version != "1"]
    raised += [name for name in registry.names("protocol") if registry.load("protocol", name).version != "1"]
    assert [name for name in raised if name not in changes] == []


def test_the_notice_names_everything_that_is_under_another_licence():
    notice = (ROOT / "NOTICE").read_text()
    folders = [path.name for path in (ROOT / "tests" / "protocols" / "real-images").iterdir() if path.is_dir()]
    assert folders and all(f"{name}/" in notice for name in folders)


# -- the workflow -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_workflow_for_other_repositories_runs(tmp_path):
    """In a repository that `bench new method` wrote; the harness comes from a network, so that steps before it are only read."""
    workflow = yaml.safe_load(page("ci-example.yml").replace("coop", "novel-method"))
    torch, harness, *commands = [step["run"] for step in workflow["jobs"]["gate"]["steps"] if "run" in step]
    assert torch == "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"  # no CUDA on such machines
    asked = harness.replace("$HARNESS", workflow["env"]["HARNESS"])
    requirement = Requirement(re.fullmatch(r'pip install "(.+)"', asked)[1])
    assert requirement.name == registry.BUILT_IN and requirement.url.startswith("git+https://")

    reader = page_commands.Reader(tmp_path, tmp_path / "cache")
    reader.environment["GITHUB_STEP_SUMMARY"] = str(tmp_path / "summary.md")
    reader.run("bench new method novel-method && mv novel-method/* .", expected=0, line=0)
    assert registry.BUILT_IN in (reader.here / "pyproject.toml").read_text()  # what that step has installed is what it needs
    compare = next(number for number, command in enumerate(commands) if command.startswith("bench gate"))
    commands.insert(compare, "bench gate fresh --baseline baselines/mini60.csv --update")
    assert commands[0] == "pip install ."
    for command in commands:
        reader.run(command, expected=0, line=0)
    assert (reader.here / "gate.xml").exists() and (reader.here / "report.html").exists()
    assert (tmp_path / "summary.md").stat().st_size
