"""Recipe files: what they hold, for whom, in what order they count, and what is said of a damaged one."""

import pytest
from click.testing import CliRunner

from bench.commands.main import main
from bench.commands.show import show
from bench.errors import BenchError
from bench.learning import recipes
from bench.learning.settings import Choices, Range, from_plain, to_plain
from bench.runs import assignments, plan
from bench.runs.facts import Facts
from bench.runs.request import Request
from methods.closed_form.cca_cl import CCACL, CCACLFrozen
from methods.text_prompts.coop import CoOp

SOUND = """
[[recipe]]
method = "coop"
method_version = "0"
protocol = "mini60-6x10"

[recipe.settings]
epochs = 3
learning_rate = 1
class_specific = false
context_words = "none"

[recipe.tuned]
trials = 8
failed = 1
study = "0123456789abcdef"
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str, name: str = "recipe.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def nothing_shipped(shipped):
    shipped("# none\n")


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """shipped(text): the recipes that come with the package."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(recipes, "SHIPPED", folder)

    def ship(text: str) -> None:
        (folder / "some.toml").write_text(text)
        recipes.shipped.cache_clear()

    yield ship
    recipes.shipped.cache_clear()


def runs(out, *files, protocols=("mini60-6x10",), set=(), methods=("coop",)):
    changes = tuple(assignments.parse(one) for one in set)
    request = Request(protocols, methods, device="cpu", precision="float32", out=out, recipe=tuple(files), set=changes)
    with Facts() as facts:
        found, notes = plan.build(request, facts)
    plan.refuse_idle_recipes([request], found)
    return found, notes


def test_a_recipe_stands_above_the_method_s_own_and_below_set(written, tmp_path, nothing_shipped):
    [plain], _ = runs(tmp_path)
    [tuned], notes = runs(tmp_path, written(SOUND))
    [changed], _ = runs(tmp_path, written(SOUND), set=["coop.epochs=4"])
    assert (plain.settings["epochs"], tuned.settings["epochs"], changed.settings["epochs"]) == (15, 3, 4)
    assert tuned.settings["learning_rate"] == 1.0 and tuned.settings["context_words"] is None
    assert tuned.settings["optimiser"] == "adamw"  # as the method's own recipe has it
    assert tuned.overrides == "class_specific=False;context_words=None;epochs=3;learning_rate=1.0"
    assert "found with version 0 of it, this is 1" in notes[0]
    assert tuned.run_id == runs(tmp_path, set=["coop.epochs=3", "coop.learning_rate=1", "coop.class_specific=false",
                                               "coop.context_words=none"])[0][0].run_id  # fmt: skip


def test_what_a_recipe_says_as_the_method_does_is_no_change(written, tmp_path, nothing_shipped):
    same = '[[recipe]]\nmethod = "coop"\nprotocol = "mini60*"\n[recipe.settings]\nepochs = 15\noptimiser = "adamw"\n'
    [plain], _ = runs(tmp_path)
    [tuned], _ = runs(tmp_path, written(same))
    assert tuned.overrides == "" and tuned.run_id == plain.run_id


def test_it_is_for_its_protocol_with_its_validation_part_and_first_tasks(written, tmp_path, nothing_shipped):
    cut = ("mini60-6x10+validation=20%", "mini60-6x10+tasks=2+validation=5-per-class", "mini60-6x10+exemplars=2-per-class")
    found, _ = runs(tmp_path, written(SOUND), protocols=cut)
    assert [run.settings["epochs"] for run in found] == [3, 3, 15]
    with pytest.raises(BenchError, match="a recipe for coop on mini60-6x10; none of these runs is that"):
        runs(tmp_path, written(SOUND), protocols=("mini-mtil-order1",))
    with pytest.raises(BenchError, match="none of these runs is that"):
        runs(tmp_path, written(SOUND), methods=("zero-shot",))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"coop"', "coop", "not a recipe that can be read"),
        ('"coop"', '"coup"', "unknown method 'coup'; did you mean coop"),
        ('method = "coop"', "", "method: a text in quotes is wanted"),
        ('protocol = "mini60-6x10"', "protocol = 5", "protocol: a text in quotes is wanted"),
        ('protocol = "mini60-6x10"', 'protocol = ""', "the name of a protocol, or a pattern, is wanted"),
        ("method_version", "method_vision", "unknown key 'method_vision'; did you mean method_version"),
        ("[[recipe]]", "[recipe]", "tables [[recipe]] are wanted"),
        ("[[recipe]]", "[[recipes]]", "unknown key 'recipe"),
        ("epochs = 3", "epoch = 3", "unknown hyper-parameter of coop 'epoch'; did you mean epochs"),
        ("epochs = 3", 'epochs = "3"', "coop: epochs: '3' stands in quotes"),
        ("epochs = 3", "epochs = 3.5", "coop: epochs: a whole number is wanted, not '3.5'"),
        ("epochs = 3", "epochs = true", "a whole number is wanted"),
        ("epochs = 3", "epochs = 1979-05-27", "a number, a text, true, false or a list of numbers is wanted"),
        ("learning_rate = 1", "learning_rate = inf", "a number is wanted"),
        ("class_specific = false", "class_specific = 1", "true or false is wanted"),
        ('context_words = "none"', 'optimiser = "adam"', "choose one of sgd, adamw"),
        ("[[recipe]]", SOUND + "[[recipe]]", "coop: it stands there twice for mini60-6x10"),
    ],
)
def test_a_damaged_recipe_gets_one_line(written, tmp_path, before, after, message):
    path = written(SOUND.replace(before, after, 1))
    with pytest.raises(BenchError) as error:
        runs(tmp_path / "out", path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value) and "\n" not in str(error.value)


def test_the_command_line_and_a_study_file_take_recipes(written, tmp_path):
    path, words = written(SOUND), ["run", "--protocol", "mini60-6x10", "--methods", "coop", "--dry-run", "--recipe"]
    found = CliRunner().invoke(main, [*words, str(tmp_path / "none.toml")], catch_exceptions=False)
    assert found.exit_code == 2 and "none.toml: not a recipe that can be read" in found.output and found.output.count("\n") == 1
    study = f'protocols = "mini60-6x10"\nmethods = "coop"\nrecipe = "{path}"\nout = "{tmp_path}/out"\n'
    study_path = written(study, "study.toml")
    for option in ([*words, str(path)], ["run", "--study", str(study_path), "--dry-run"]):
        found = CliRunner().invoke(main, option, catch_exceptions=False)
        assert found.exit_code == 0 and "epochs=3" in found.output, found.output
    assert not (tmp_path / "out").exists()


def test_shipped_recipes_stand_above_those_of_the_class(shipped):
    shipped("# nothing yet\n")
    assert CoOp.settings_for("mini60-6x10").epochs == 15 and "tuned on validation" not in show("coop")
    shipped(SOUND)
    tuned = CoOp.settings_for("mini60-6x10")
    assert (tuned.epochs, tuned.context_words, tuned.optimiser) == (3, None, "adamw")
    assert CoOp.settings_for("mini60-6x10+validation=20%") == tuned and CoOp.settings_for("mini-mtil-order1").epochs == 15
    assert CoOp.settings_for("mini60-6x10", {"epochs": 2}).epochs == 2

    class Mine(CoOp):
        """Another method."""

    assert Mine.settings_for("mini60-6x10").epochs == 15
    page = show("coop")
    assert "8 trials (1 failed" in page and "study 0123456789abcdef" in page and "0.0001 to 0.1, logarithmic" in page


def test_a_shipped_recipe_is_of_one_method_and_no_other(shipped):
    shipped(SOUND.replace('"coop"', '"cca-cl"').split("epochs")[0] + "sigma = 2.0\n")
    assert (CCACL.settings_for("mini60-6x10").sigma, CCACLFrozen.settings_for("mini60-6x10").sigma) == (2.0, 1.0)


def test_those_that_ship_can_be_read():
    for one in recipes.shipped():
        assert one.tuned and recipes.typed(recipes.chosen([one], one.method, one.tuned["on"]), one.method, _settings(one.method))


def _settings(name):
    from bench.system import registry

    return registry.load("method", name).Settings


def test_what_is_written_is_read_as_the_same(written):
    settings = {"epochs": 3, "learning_rate": 1e-05, "placeholder": 'a "b"\\', "context_words": None, "class_specific": True}
    table = {"method": "coop", "method_version": "1", "protocol": "mini60-6x10", "settings": settings, "tuned": {"seeds": [1, 2]}}
    [found] = recipes.read(written(recipes.to_toml([(table, "a comment")])))
    assert found.tuned == {"seeds": [1, 2]} and found.protocol == "mini60-6x10"
    assert recipes.typed(recipes.chosen([found], "coop", "mini60-6x10"), "coop", CoOp.Settings) == settings


@pytest.mark.parametrize("search", [Range(0, 5), Range(1e-4, 1, log=True), Range(0.0, 1.0, step=0.1), Choices("a", 1, (1, 2))])
def test_search_spaces_survive_as_plain_data(search):
    assert from_plain(to_plain(search)) == search


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Range(2, 1), lambda: Range(0, 1, log=True), lambda: Range(0, 4, step=0.5), lambda: Range(0, float("inf")),
        lambda: Range(True, 4), lambda: Range(1, 4, log=True, step=1), lambda: Range(1, 4, step=-1), lambda: Choices(1),
        lambda: Choices(1, 1), lambda: Choices(1, {}), lambda: Range(1, 2, log="yes"),
    ],
)  # fmt: skip
def test_unsound_search_spaces_are_refused(wrong):
    with pytest.raises(ValueError):
        wrong()
