"""The report is one page that loads nothing, holds every number and every run, and executes nothing from results."""

import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.clip.mini import WEIGHTS
from bench.commands import main
from bench.errors import BenchError
from bench.pictures.page import write
from bench.pictures.page.reproduction import command
from bench.pictures.style import SERIES
from bench.reports import costs, tables
from bench.reports.formats import Table
from bench.results.groups import arranged
from bench.results.loaded import load
from bench.results.records import CONDITIONS
from tests.results_folder import write_run

CGIL = [[0.8, 0.7, 0.6], [0.8, 0.8, 0.7], [0.7, 0.8, 0.9]]
FLAT = np.full((3, 3), 0.5).tolist()
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects elements, and fails on a tag that is closed in the wrong place."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def all(self, tag):
        return [attributes for found, attributes in self.elements if found == tag]

    def text(self, tag):
        return [text for found, text in self.texts if found == tag and text]


@pytest.fixture
def folder(tmp_path):
    out = tmp_path / "results"
    write_run(out, FLAT, method="zero-shot")
    for seed in (0, 1):
        write_run(out, CGIL, seed=seed, method="cgil", overrides="epochs=3")
    write_run(out, FLAT, method=EVIL.replace("/", "\\"), overrides='name="><img src=x onerror=alert(1)>')
    return out


@pytest.fixture
def text(folder):
    return write.render(load([folder]))


def test_page_is_well_formed(text):
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}]
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    references = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert set(references) <= set(identifiers)


def test_page_loads_nothing(text):
    page = Page(text)
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert attributes.get(name, "#").startswith("#")
    assert not re.search(r"@import|url\((?!#)", text)
    assert not page.all("link") and not page.all("img") and not page.all("iframe")
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<>]+", text)) <= namespaces


def test_only_the_pages_own_script_may_run(text):
    page = Page(text)
    assert len(page.all("script")) == 1
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and re.search(r"script-src 'sha256-[\w+/=]{44}'$", policy)


def test_markup_in_results_is_escaped(text):
    assert "<script>alert" not in text and "<img" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert any(EVIL.replace("/", "\\") in name for name in Page(text).text("th"))
    assert not [attributes for _, attributes in Page(text).elements if any(name.startswith("on") for name in attributes)]


def test_every_number_of_the_table_is_on_the_page(folder, text):
    cells = Page(text).text("span") + Page(text).text("strong") + Page(text).text("u")
    for table in tables.build(load([folder]).table):
        for row in table.rows:
            assert {cell.text for cell in row[1:]} <= set(cells)


def test_every_run_has_its_command_and_manifest(folder, text):
    results = load([folder])
    manifests = [json.loads(code) for code in Page(text).text("code") if code.startswith("{")]
    assert {manifest["run_id"] for manifest in manifests} == set(results.table["run_id"])
    commands = [code for code in Page(text).text("code") if code.startswith("bench run ")]
    assert len(commands) == 4
    assert "bench run --protocol toy-3x2 --methods cgil --order-seeds 0 --seeds 1 --device cpu --set cgil.epochs=3" in commands


@pytest.mark.parametrize(
    "options",
    [
        "--methods zero-shot",
        "--methods coop --pretrained 'my weights.safetensors' --precision bfloat16 --order-seeds 2 --seeds 5 "
        "--set coop.epochs=1 --set coop.class_specific=false",
        "--methods ranpac --data synthetic --set ranpac.ridges=0.1,1",
    ],
)
def test_command_of_a_real_run_plans_that_run_again(options, tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(WEIGHTS, "my weights.safetensors")

    def call(*words: str) -> str:
        done = CliRunner().invoke(main.main, [*words, "--cache-dir", str(cache)])
        assert done.exit_code == 0, done.output
        return done.stdout

    call("run", "--protocol", "mini-digits-2x5+exemplars=2-per-class", "--limit-train", "2", "--limit-test", "1",
         "--device", "cpu", *shlex.split(options))  # fmt: skip
    results = load([Path("results")])
    (run,) = arranged(results)[0].methods[0].table.to_dict("records")
    program, *words = shlex.split(command(run, results.manifests[run["run_id"]]))
    assert program == "bench"
    planned = call(*words, "--dry-run")
    assert planned.startswith("1 run, 0 to do") and f" {run['run_id']}  finished" in planned


ROW = {
    "protocol": "p", "method": "coop", "overrides": "", "backbone": "ViT-B-16", "pretrained": "openai", "limits": "",
    "order_seed": 0, "seed": 0,
}  # fmt: skip


def test_command_quotes_for_the_shell_and_names_weights():
    row = ROW | {"overrides": "words=a b;c;epochs=3", "pretrained": "my weights.pt@01234567"}
    manifest = {"identity": {"device": "cpu", "settings": {"words": "a b;c", "epochs": 3}}, "pretrained": "sub/my weights.pt"}
    assert shlex.split(command(row, manifest))[10:] == [
        "--backbone", "ViT-B-16", "--pretrained", "sub/my weights.pt", "--device", "cpu",
        "--set", "coop.words=a b;c", "--set", "coop.epochs=3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [
        ("cpu", None, ["--device", "cpu"]),
        ("cpu", "bfloat16", ["--device", "cpu", "--precision", "bfloat16"]),
        ("cuda", "float16", ["--device", "cuda", "--precision", "float16"]),
        ("cuda", None, ["--device", "cuda", "--precision", "float32"]),  # not what a GPU would choose by itself
    ],
)
def test_command_names_the_precision_unless_the_device_chooses_it(device, precision, words):
    identity = {"device": device, **({"precision": precision} if precision else {})}
    assert shlex.split(command(ROW, {"identity": identity, "pretrained": "openai"}))[14:] == words


@pytest.mark.parametrize(
    ("backbone", "label", "words"),
    [
        ("mini", "mini@4c90dd7e", []),
        ("mini", "other.safetensors@4c90dd7e", ["--pretrained", "other.safetensors"]),
        ("ViT-B-16", "openai", ["--backbone", "ViT-B-16", "--pretrained", "openai"]),
        ("ViT-B-16 + vit_base_patch16_224", "openai", ["--backbone", "ViT-B-16", "--pretrained", "openai"]),
    ],
)
def test_command_without_a_manifest_takes_weights_from_their_label(backbone, label, words):
    assert shlex.split(command(ROW | {"backbone": backbone, "pretrained": label}, {}))[10:] == words


def test_cost_is_the_mean_over_runs(folder):
    results = load([folder])
    table = costs.cost_table(arranged(results)[0], results)
    assert isinstance(table, Table)
    cgil = next(row for row in table.data if row["method"] == "cgil (epochs=3)")
    assert cgil["Learning (s)"] == 9.0 and cgil["Evaluation (s)"] == 3.0 and cgil["Trainable parameters"] == 2048


def test_versions_and_devices_stand_on_top_with_their_numbers_of_runs(tmp_path):
    for method, torch in (("coop", "2.15.0"), ("cgil", "2.15.0"), ("zscl", "2.14.0")):
        manifest = write_run(tmp_path, CGIL, method=method) / "manifest.json"
        facts = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(facts | {"environment": facts["environment"] | {"torch": torch}}))
    head = write.render(load([tmp_path])).split("<main>")[0]
    assert "<dt>torch</dt><dd>2.15.0 (2 runs), 2.14.0 (1 run)</dd>" in head
    assert "<dt>device</dt><dd>cpu x86_64</dd>" in head


@pytest.mark.parametrize(
    ("given", "where"), [("results", "results"), ("results/toy-3x2/cgil", "results"), ("../elsewhere/results", "results")]
)
def test_every_run_says_where_it_lay_and_repeats_there_without_an_absolute_path(given, where, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    root = Path(given.split("/toy")[0])
    run = write_run(root, CGIL, method="cgil")
    text = write.write([Path(given)], Path("report.html")).read_text()
    assert f"--device cpu --out {where}</code>" in text
    outside = given.startswith("..")
    assert f"lay in {run.name if outside else f'results/toy-3x2/cgil/{run.name}'}<" in text
    assert str(tmp_path) not in text
    assert write.write([root.absolute()], Path("absolute.html")).read_text() == text


def test_a_cell_says_the_number_of_every_run(text):
    says = [cell.get("title", "") for cell in Page(text).all("td")]
    assert "cgil (epochs=3): Last 80.0 ± 0.0 (order 0 seed 0: 80.00; order 0 seed 1: 80.00)" in says
    assert "zero-shot: runs 1" in says


def test_a_point_says_its_numbers_and_every_method_has_a_curve_and_a_switch(text):
    page = Page(text)
    assert "cgil (epochs=3), after task 3: 80.00% ± 0.00" in page.text("title")
    curves = {element["data-method"] for element in page.all("g") if element.get("class") == "curve"}
    assert curves == {element["data-method"] for element in page.all("li") if "data-method" in element}
    assert len(curves) == 3


def test_others_are_compared_with_the_best_or_with_whom_one_names(folder, tmp_path):
    text = write.render(load([folder]))
    assert "Every method against cgil (epochs=3), run by run" in text
    text = write.write([folder], tmp_path / "report.html", "zero-shot").read_text()
    assert "Every method against zero-shot, run by run" in text
    with pytest.raises(BenchError, match="unknown method of these results 'zero-short'; did you mean zero-shot"):
        write.write([folder], tmp_path / "report.html", "zero-short")


def test_a_matrix_of_many_tasks_is_drawn_without_numbers(tmp_path):
    write_run(tmp_path, np.tril(np.full((13, 13), 0.5)).tolist(), method="coop")
    write_run(tmp_path, np.full((13, 13), 0.9).tolist(), method="joint", joint=True)
    page = Page(write.render(load([tmp_path])))
    drawn = [element for element in page.all("svg") if element.get("class") == "matrix"]
    assert {element["viewbox"] for element in drawn} == {"0 0 13 13", "0 0 13 1"}
    assert not [element for element in page.all("table") if element.get("class") == "heat"]


def test_limited_runs_are_marked(tmp_path):
    write_run(tmp_path, CGIL, limits="train=5;test=5")
    assert "LIMITED to train=5;test=5 images a class" in write.render(load([tmp_path]))


def test_pictures_follow_the_theme(text):
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "var(--series-1)" in drawings and "var(--muted)" in drawings
    assert not re.findall(r"#[0-9a-f]{6}", drawings)


def test_the_ranking_that_matplotlib_draws_follows_the_theme_too(tmp_path):
    for protocol in "abcde":
        for method, last in (("coop", 0.4), ("cgil", 0.6), ("zscl", 0.8)):
            write_run(tmp_path, np.full((2, 2), last).tolist(), method=method, protocol=protocol)
    (drawing,) = re.findall(r"<svg.*?</svg>", write.render(load([tmp_path])).split("Over all protocols")[1], flags=re.DOTALL)
    assert "currentColor" in drawing and not set(SERIES) & set(re.findall(r"#[0-9a-f]{6}", drawing))


def test_records_without_manifest_still_give_a_page(tmp_path):
    run = write_run(tmp_path, CGIL)
    (run / "manifest.json").unlink()
    text = write.render(load([run / "records.csv"]))
    assert "bench run --protocol toy-3x2 --methods coop" in text
    assert "<h3>Results</h3>" in text and "Manifest" not in text and ">Cost<" not in text


def test_same_results_give_the_same_bytes(folder, tmp_path):
    first, again = (write.write([folder], tmp_path / name).read_bytes() for name in ("first.html", "again.html"))
    assert first == again


def test_every_condition_has_its_own_section(tmp_path):
    write_run(tmp_path, CGIL)
    write_run(tmp_path, CGIL, templates="ffffffff")
    write_run(tmp_path, CGIL, protocol="other")
    page = Page(write.render(load([tmp_path])))
    assert len(page.all("section")) == 3
    assert [link["href"] for link in page.all("a")] == [f"#{section['id']}" for section in page.all("section")]
    assert "templates" in CONDITIONS


def test_folder_as_output_and_folder_without_runs_are_refused(folder, tmp_path):
    with pytest.raises(BenchError, match="-o wants the name of a file"):
        write.write([folder], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match="no finished run there yet"):
        write.write([tmp_path / "empty"], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
