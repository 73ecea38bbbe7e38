"""`bench tune`: which trials there are, what becomes of them, and that a repeated command is the same search."""

import json
import tomllib

import pytest
from click.testing import CliRunner

from bench.commands.main import main
from bench.learning.settings import Choices, Range, search_space
from bench.runs import launch
from bench.runs.tuning import proposals
from bench.system import registry
from tests.bench.system.test_registry import plugin  # noqa: F401

# Four classes of grey, whose test images cannot be opened; a method that recognises the first `known` classes of the stream.
NOVEL = '''
    import numpy as np
    import torch
    from dataclasses import dataclass
    from bench import Choices, Dataset, DatasetInfo, ImageSource, Method, Range, setting

    def open_split(split, folders):
        assert split == "train", "a test image was opened"
        labels = np.array([0, 1, 2, 3] * 10)
        images = np.repeat((labels * 60).astype(np.uint8), 16 * 16 * 3).reshape(-1, 16, 16, 3)
        return ImageSource.from_arrays(images, labels)

    greys = Dataset(DatasetInfo("greys", "1", tuple("abcd"), ("a {}.",), "greys", "here", 40, 5), open_split, content="own")

    @dataclass(frozen=True)
    class Settings:
        known: int = setting(1, "classes that are recognised", search=Range(0, 9))
        share: float = setting(0.5, "moves nothing", search=Range(0.0, 1.0))
        kind: str = setting("plain", "moves nothing", search=Choices("plain", "odd"))
        steps: tuple[int, ...] = setting((1, 2), "moves nothing")

    class Knowing(Method):
        """Recognises some classes."""

        Settings = Settings
        inputs = "pixels"
        recipes = {"greys*": {"steps": (3,)}}

        def prepare(self):
            self.register_buffer("means", torch.full((len(self.scenario.class_names),), 1e6))

        def learn(self, task):
            if self.settings.known == 3:
                raise ArithmeticError("three is too many")
            pixels, labels = task.train.pixels(), task.train.labels
            for c in task.classes:
                self.means[c] = pixels[labels == c].mean()

        def logits(self, batch, classes):
            own = self.means[list(classes)]
            own = torch.where(torch.tensor(list(classes)) < self.settings.known, own, torch.tensor(1e6))
            return -(batch.mean((1, 2, 3))[:, None] - own).abs()
'''
STREAM = "greys-2x2"
ON = f"{STREAM}+validation=20%"


@pytest.fixture
def bench(plugin, monkeypatch, tmp_path, cache):  # noqa: F811
    """bench("tune", ...) where the method `knowing` and the data set `greys` are installed, in an empty folder."""
    plugin("[bench.datasets]\ngreys = novel:greys\n[bench.methods]\nknowing = novel:Knowing\n", novel=NOVEL)
    monkeypatch.chdir(tmp_path)

    def call(*words):
        folders = ["--cache-dir", str(cache), "--data-dir", "data"] if words[0] in ("run", "tune") else []
        return CliRunner().invoke(main, [*map(str, words), *folders], catch_exceptions=False)

    return call


def kept(folder, stream=STREAM, method="knowing"):
    return json.loads((folder / "tuned" / stream / f"{method}.json").read_text())


def recipe(folder, stream=STREAM, method="knowing"):
    [found] = tomllib.loads((folder / "tuned" / stream / f"{method}.toml").read_text())["recipe"]
    return found


def without_times(found):
    return {**found, "tuned": {key: value for key, value in found["tuned"].items() if not key.startswith("seconds")}}


def test_a_search_ends_in_a_recipe_that_gives_the_same_run(bench, tmp_path):
    """Test images raise when they are opened; failed trials are kept; the recipe is that of the best trial."""
    found = bench("tune", "knowing", "--protocol", STREAM, "--trials", "12")
    assert found.exit_code == 0, found.output
    trials, made = kept(tmp_path / "tuning")["trials"], recipe(tmp_path / "tuning")
    assert len(trials) == 12 and trials[0]["values"] == {"known": 1, "share": 0.5, "kind": "plain"}
    failed = [trial for trial in trials if trial["state"] == "failed"]
    assert failed and all(trial["values"]["known"] == 3 and "three is too many" in trial["reason"] for trial in failed)
    scores = {trial["number"]: trial["score"] for trial in trials if trial["state"] == "scored"}
    assert all(scores[k] == min(trials[k]["values"]["known"], 4) / 4 for k in scores) and max(scores.values()) > scores[0]
    tuned = made["tuned"]
    assert made["protocol"] == STREAM and tuned["on"] == ON and tuned["failed"] == len(failed) and tuned["seeds"] == [1000]
    assert tuned["score"] == 100 * max(scores.values()) and tuned["score_at_present"] == 25.0
    assert made["settings"] == trials[tuned["trial"]]["values"] | {"steps": [3]}  # what the method's own recipe says as well

    again = bench("run", "--protocol", ON, "--methods", "knowing", "--recipe", "tuning/tuned/greys-2x2.toml",
                  "--seeds", "1000", "--order-seeds", "1000", "--out", "tuning", "--dry-run")  # fmt: skip
    assert trials[tuned["trial"]]["runs"][0] in again.output and "1 run, 0 to do" in again.output, again.output


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(bench, tmp_path, monkeypatch):
    words = ("tune", "knowing", "--protocol", STREAM, "--trials", "6", "--metric", "avg")
    assert bench(*words, "--out", "whole").exit_code == 0
    plain = launch.in_process

    def killed(runs, place, report):
        for count, outcome in enumerate(plain(runs, place, report)):
            yield outcome
            if count == 1:
                raise KeyboardInterrupt

    for _ in range(2):
        monkeypatch.setattr(launch, "in_process", killed)
        assert bench(*words, "--out", "parts").exit_code == 130
    monkeypatch.setattr(launch, "in_process", plain)
    assert bench(*words, "--out", "parts").exit_code == 0
    whole, parts = kept(tmp_path / "whole"), kept(tmp_path / "parts")
    canonical = [[{k: t[k] for k in ("values", "runs", "state", "score")} for t in one["trials"]] for one in (whole, parts)]
    assert canonical[0] == canonical[1] and whole["digest"] == parts["digest"]
    assert without_times(recipe(tmp_path / "whole")) == without_times(recipe(tmp_path / "parts"))
    # and with more trials it goes on from there, as one that was asked for all of them at once
    assert bench(*words[:-4], "--trials", "9", "--metric", "avg", "--out", "parts").exit_code == 0
    assert bench(*words[:-4], "--trials", "9", "--metric", "avg", "--out", "nine").exit_code == 0
    assert kept(tmp_path / "parts")["digest"] == kept(tmp_path / "nine")["digest"]


def test_too_slow_trials_and_draws_leave_the_present_recipe(bench, tmp_path):
    found = bench("tune", "knowing", "--protocol", STREAM, "--trials", "4", "--max-seconds", "0.00001", "--out", "slow")
    tuned = recipe(tmp_path / "slow")["tuned"]
    assert found.exit_code == 0 and tuned["trial"] == 0 and tuned["over_max_seconds"] >= 1
    (tmp_path / "s.toml").write_text("[knowing]\nshare = {low = 0.0, high = 1.0, step = 0.25}\n")
    found = bench("tune", "knowing", "--protocol", STREAM, "--trials", "9", "--search", "s.toml", "--out", "draw")
    assert "nothing: the present recipe stays" in found.output and recipe(tmp_path / "draw")["tuned"]["trial"] == 0
    assert len(kept(tmp_path / "draw")["trials"]) == 5  # the space holds no more


def test_several_methods_and_the_first_tasks_alone(bench, tmp_path):
    found = bench("tune", "zero-shot,knowing", "--protocol", STREAM, "--trials", "2", "--tasks", "1", "--seeds", "1,2",
                  "--set", "knowing.known=2")  # fmt: skip
    assert found.exit_code == 0 and f"zero-shot on {STREAM}+tasks=1+validation=20%: nothing to tune" in found.output
    about, made = kept(tmp_path / "tuning")["about"], recipe(tmp_path / "tuning")
    assert about["protocol"] == f"{STREAM}+tasks=1+validation=20%" and about["seeds"] == [1, 2] and "known" not in about["space"]
    assert made["protocol"] == STREAM and made["settings"]["known"] == 2
    paths = (tmp_path / "tuning").glob(f"{about['protocol']}/knowing/*/manifest.json")
    manifests = [json.loads(path.read_text()) for path in paths]
    assert len(manifests) == 4 and all([len(task["classes"]) for task in one["tasks"]] == [2] for one in manifests)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--metric", "ece"), "--metric ece: it is not made of accuracies alone"),
        (("--metric", "lest"), "unknown metric 'lest'; did you mean last"),
        (("--tasks", "3"), "greys-2x2: +tasks=3 asks for more tasks than there are (2)"),
        (("--search", "none.toml"), "none.toml: not a search file that can be read"),
        (("--search", "[coop]\nepochs = {low = 1, high = 2}"), "unknown method of this search 'coop'; known: knowing"),
        (("--search", "[knowing]\nknow = {low = 1, high = 2}"), "unknown hyper-parameter of knowing 'know'; did you mean known?"),
        (("--search", "[knowing]\nknown = {low = 1.5, high = 2}"), "knowing.known: a whole number is wanted, not '1.5'"),
        (("--search", "[knowing]\nknown = {low = 3, high = 2}"), "knowing.known: low 3 of a range is not below its high 2"),
        (("--search", "[knowing]\nknown = {low = 0, high = 2, log = true}"), "on a logarithmic scale begins above 0"),
        (("--search", "[knowing]\nknown = [1, 2]"), "knowing.known: a table is wanted, {low, high, log, step} or {choices}"),
        (("--search", "[knowing]\nknown = {choices = [1, '2']}"), "'2' stands in quotes"),
        (("--search", "[knowing]\nknown = {choices = [1]}"), "choices are two different values or more"),
        (("--search", "[knowing]\nsteps = {low = 1, high = 2, stop = 3}"), "low, high, stop is given"),
    ],
)
def test_bad_requests_get_one_line(bench, tmp_path, words, message):
    if words[0] == "--search" and "\n" in words[1]:
        (tmp_path / "search.toml").write_text(words[1])
        words = ("--search", "search.toml")
    found = bench("tune", "knowing", "--protocol", STREAM, "--trials", "2", *words)
    assert found.exit_code == 2 and message in found.output and found.output.count("\n") == 1, found.output
    assert not (tmp_path / "tuning" / "tuned").exists()


def test_two_searches_do_not_share_a_file(bench, tmp_path):
    words = ("tune", "knowing", "--protocol", STREAM, "--trials", "1")
    assert bench(*words).exit_code == 0
    other = bench(*words, "--metric", "avg")
    assert other.exit_code == 2 and "the search that it keeps has another metric; give another --out" in other.output
    path = tmp_path / "tuning" / "tuned" / STREAM / "knowing.json"
    path.write_text(path.read_text()[:-50])
    damaged = bench(*words)
    assert damaged.exit_code == 2 and "not a search that can be read" in damaged.output and "delete it" in damaged.output


SPACE = {"rate": Range(1e-4, 0.1, log=True), "epochs": Range(1, 5), "kind": Choices("a", "b"), "grid": Range(0.0, 1.0, step=0.1)}


def test_proposals_depend_on_the_history_and_the_round_alone():
    first = proposals.propose(SPACE, [], 0, "a method", True)
    assert first == proposals.propose(SPACE, [], 0, "a method", True)
    assert len(first) == proposals.ROUND and all(SPACE[name].contains(one[name]) for one in first for name in SPACE)
    past = [(values, score) for values, score in zip(first, (0.1, 0.9, None, 0.3))]
    second, again, other = (proposals.propose(SPACE, known, 1, "a method", True) for known in (past, past, past[:3]))
    assert second == again != other
    assert not [one for one in second if one in first]
    assert all(len(f"{one['rate']:.3g}") >= len(repr(one["rate"])) - 4 for one in first)  # three digits


def test_the_history_moves_proposals_towards_what_was_good():
    space = {"x": Range(0.0, 1.0)}
    past = [({"x": round(0.05 * k, 2)}, 1 - abs(0.05 * k - 0.7)) for k in range(20)]
    found = [one["x"] for number in range(5, 10) for one in proposals.propose(space, past, number, "a method", True)]
    assert sum(0.5 < x < 0.9 for x in found) > 0.7 * len(found)


@pytest.mark.parametrize("name", registry.names("method"))
def test_a_method_s_search_space_holds_what_it_is_run_with(name):
    """The authors' value, and that of the mini recipes: else trial 0 would say nothing to the search."""
    method = registry.load("method", name)
    space = search_space(method.Settings)
    assert len(space) != 1 and len(space) <= 5
    for protocol in ("none", "mini60-6x10", "mini-mtil-order1"):
        settings = method.settings_for(protocol)
        assert not [field for field, search in space.items() if not search.contains(getattr(settings, field))]
