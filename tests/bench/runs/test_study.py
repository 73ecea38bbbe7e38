"""Study files: what they ask for, and what is said about one that is wrong."""

import pytest

from bench.errors import BenchError
from bench.runs import request

WHOLE = """
protocols = ["mini60-6x10", "mini-objects60-6x10"]
methods = ["coop", "zero-shot"]
seeds = [0, 1]
out = "elsewhere"
limit_train = 2
limit_test = 1

[set]
coop.epochs = 1

[grid]
coop.learning_rate = [0.1, 0.2]

[[runs]]

[[runs]]
protocols = "mini60-6x10"
methods = "cgil"
seeds = 0
set.cgil.vae_epochs = 1
"""


@pytest.fixture
def read(tmp_path):
    def read(text: str, **given):
        path = tmp_path / "study.toml"
        path.write_text(text)
        return request.read(path, given)

    return read


def test_parts_share_what_stands_above_them(read):
    first, second = read(WHOLE).requests
    assert first.protocols == ("mini60-6x10", "mini-objects60-6x10") and second.protocols == ("mini60-6x10",)
    assert second.limit_train == first.limit_train == 2
    assert [(one.method, one.field, one.text) for one in second.set] == [("coop", "epochs", "1"), ("cgil", "vae_epochs", "1")]
    assert [one.text for one in first.grid[0]] == ["0.1", "0.2"]


def test_options_of_the_command_line_go_before_the_file(read):
    found = read(WHOLE, seeds=(7,), limit_train=5).requests
    assert {one.seeds for one in found} == {(7,)} and {one.limit_train for one in found} == {5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("protocols =", "not a study file that can be read"),
        ("a = " + "[" * 5000, "not a study file that can be read"),
        ("methods = ['coop']", "no protocols are named"),
        ("protocols = ['p']\nmethods = []", "methods: a list of names in quotes is wanted"),
        ("protocol = ['p']", "unknown key 'protocol'; did you mean protocols"),
        ("seeds = [-1]", "seeds: a list of whole numbers, 0 or larger, is wanted"),
        ("seeds = [true]", "seeds: a list of whole numbers"),
        ("limit_train = 0", "limit_train: a whole number, 1 or larger, is wanted"),
        ("data = 'fake'", "data: choose one of real, synthetic"),
        ("out = 3", "out: text in quotes is wanted"),
        ('out = "a\\u0000b"', "out: text in quotes is wanted"),
        ("set = 3", "set: write it as METHOD.FIELD = VALUE"),
        ("set.coop = 3", "set: write it as METHOD.FIELD = VALUE"),
        ("set.coop.lr = {}", "set.coop.lr: a number, a text, true, false or a list of numbers is wanted"),
        ("grid.coop.lr = 3", "grid.coop.lr: a list of the values to try is wanted"),
        ("runs = 3", "runs: tables [[runs]] are wanted"),
        ("slurm = 3", "slurm: a table [slurm] is wanted"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_it(read, text, message):
    with pytest.raises(BenchError) as caught:
        read(text)
    assert message in str(caught.value) and "study.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_is_planned_from_the_command_line(bench, tmp_path):
    (tmp_path / "study.toml").write_text(WHOLE)
    found = bench("run", "--study", "study.toml", "--dry-run")
    assert found.returncode == 0, found.stderr
    assert "13 runs, 13 to do" in found.stdout  # 2 protocols x (2 rates of coop + zero-shot) x 2 seeds, and one of cgil
    assert "results in elsewhere" in found.stdout
    assert "4 runs, 4 to do" in bench("run", "--study", "study.toml", "--methods", "zero-shot", "--dry-run").stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("set.coop.rate = 1", "study.toml: set.coop.rate: unknown hyper-parameter of coop 'rate'"),
        ("grid.coop.epochs = ['many']", "study.toml: grid.coop.epochs: a whole number is wanted, not 'many'"),
        ("set.cgil.vae_epochs = 1", "study.toml: set.cgil.vae_epochs: unknown method of this run 'cgil'"),
    ],
)
def test_a_wrong_hyper_parameter_is_named_with_its_place(bench, tmp_path, text, message):
    (tmp_path / "study.toml").write_text(f'protocols = "mini60-6x10"\nmethods = "coop"\n{text}\n')
    found = bench("run", "--study", "study.toml")
    assert found.returncode == 2 and message in found.stderr and found.stderr.count("\n") == 1
