"""Generated bad input to the command line, study files, records and matrices: one line and exit code 2, or success.

Never a traceback, never half an output, never a file left behind. More than 500 inputs, always the same ones.
"""

import math
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.commands.main import main
from tests.results_folder import write_run

MANY = settings(
    max_examples=150, derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch, cache):
    """An empty working folder; caches lie elsewhere."""
    import torch  # noqa: F401  (here already, so that a plan asks no other process)

    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    return tmp_path


def answered_in_order(folder: Path, arguments: list[str]) -> Result:
    """Success, or one line on stderr, exit code 2 and nothing else."""
    before = sorted(folder.joinpath("working").rglob("*"))
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, repr(result.exception))
    assert result.exit_code in (0, 2), (arguments, result.output)
    if result.exit_code:
        assert result.stderr.count("\n") == 1 and result.stderr.startswith("bench: "), (arguments, result.stderr)
        assert result.stdout == "", (arguments, result.stdout)
    assert sorted(folder.joinpath("working").rglob("*")) == before
    return result


# -- command line -----------------------------------------------------------------------------------------------

ODD = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),  # as an operating system passes it
    st.sampled_from(
        ["", ",", "-1", "0", "nan", "1e999", "../x", "a.b=c", "=", ".", "all", "mini60-6x10", "cgil", "9" * 30, "é", "²"]
    ),
    st.integers().map(str),
    st.floats().map(str),
)
GOOD = {"--protocol": "mini60-6x10", "--methods": "coop", "--seeds": "0,1", "--set": "coop.epochs=3", "--limit-train": "4"}
OPTIONS = [
    *GOOD, "--order-seeds", "--backbone", "--pretrained", "--precision", "--ablate", "--data", "--limit-test", "--out",
    "--threads", "--jobs", "--launcher", "--slurm", "--device", "--nonsense",
]  # fmt: skip
ASSIGNMENTS = st.builds(
    "{}.{}={}".format,
    st.sampled_from(["coop", "cgil", "x", ""]),
    st.sampled_from(["epochs", "batch_size", "class_end", "x", ""]),
    ODD,
)


@MANY
@given(
    changes=st.lists(st.tuples(st.sampled_from(OPTIONS), ODD | ASSIGNMENTS), min_size=1, max_size=3),
    extra=st.lists(ODD, max_size=1),
)
def test_bad_options(folder, changes, extra):
    options = {**GOOD, **dict(changes)}
    arguments = [part for pair in options.items() for part in pair]
    answered_in_order(folder, ["run", *arguments, *extra, "--dry-run"])


@settings(MANY, max_examples=60)
@given(
    arguments=st.lists(
        ODD | st.sampled_from(["table", "metrics", "show", "gate", "compare", "plot", "--format", "-o"]), min_size=1, max_size=4
    )
)
def test_bad_commands(folder, arguments):
    if not {"--help", "-h", "--version"} & set(arguments):
        answered_in_order(folder, arguments)


# -- study files ------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.integers(-3, 2**40),
    st.floats(),
    st.booleans(),
    st.text(max_size=8),
    st.sampled_from(["mini60-6x10", "coop", "all", "cpu", "auto"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["coop", "epochs", "x"]), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["protocols", "protocol", "methods", "seeds", "order_seeds", "set", "grid", "ablate", "device", "precision", "data", "out",
     "limit_train", "limit_test", "backbone", "pretrained", "slurm", "runs", "run", "launcher", "x"]
)  # fmt: skip


def toml(value) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "nan" if math.isnan(value) else ("-" if value < 0 else "") + "inf" if math.isinf(value) else repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value if not 0xD800 <= ord(c) < 0xE000) + '"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    return "[" + ", ".join(map(toml, value)) + "]"


@MANY
@given(content=st.dictionaries(KEYS, VALUES, max_size=5), whole=st.booleans())
def test_bad_study_files(folder, content, whole):
    if whole:
        content = {"protocols": ["mini60-6x10"], "methods": ["coop"], **content}
    path = folder / "study.toml"
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in content.items()))
    answered_in_order(folder, ["run", "--study", str(path), "--dry-run"])


@settings(MANY, max_examples=40)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_study_files_that_are_none(folder, content):
    (folder / "study.toml").write_bytes(content)
    answered_in_order(folder, ["run", "--study", str(folder / "study.toml"), "--dry-run"])


# -- records ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_records(tmp_path_factory) -> list[list[str]]:
    """The cells of a records file."""
    run = write_run(tmp_path_factory.mktemp("records"), [[0.5, 0.4], [0.6, 0.7]])
    return [line.split(",") for line in (run / "records.csv").read_text().splitlines()]


CELLS = st.one_of(
    st.sampled_from(["", "nan", "inf", "-1", "1e400", "0.5", "2", "99", "1_0", " 1", "0x1", "²", "9" * 400]),
    st.sampled_from(["seen", "task", "x", '"', "a;b", "True"]),
    st.text(max_size=5).filter(lambda text: "," not in text),
)


@MANY
@given(data=st.data())
def test_bad_records(folder, whole_records, data):
    cells = [list(row) for row in whole_records]
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["cell", "column", "drop a cell", "drop a row", "repeat a row", "cut"]))
        row = data.draw(st.integers(0, len(cells) - 1))
        column = data.draw(st.integers(0, len(cells[row]) - 1)) if cells[row] else 0
        if kind == "cell" and cells[row]:
            cells[row][column] = data.draw(CELLS)
        elif kind == "column":
            value = data.draw(CELLS)
            for other in cells[1:]:
                other[column : column + 1] = [value]
        elif kind == "drop a cell" and cells[row]:
            del cells[row][column]
        elif kind == "drop a row" and len(cells) > 1:
            del cells[row]
        elif kind == "repeat a row":
            cells.append(list(cells[row]))
        elif kind == "cut":
            cells = cells[: row + 1]
    text = "\n".join(",".join(row) for row in cells) + "\n"
    path = folder / "records.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    view = data.draw(st.sampled_from(["summary", "tasks", "matrix"]))
    answered_in_order(
        folder, ["table", str(path), "--view", view, "--format", data.draw(st.sampled_from(["plain", "csv", "json", "html"]))]
    )


@settings(MANY, max_examples=40)
@given(content=st.binary(max_size=80))
def test_records_and_matrices_that_are_none(folder, content):
    (folder / "records.csv").write_bytes(content)
    answered_in_order(folder, ["table", str(folder / "records.csv")])
    answered_in_order(folder, ["metrics", str(folder / "records.csv")])


# -- matrices ---------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.floats(0, 100).map("{:.2f}".format), st.sampled_from(["", "-", "nan", "inf", "1e999", "x", "0", "-3", "101", "1,5", "٣"])
)
WIDE = st.lists(st.lists(NUMBERS, min_size=1, max_size=4).map(",".join), min_size=1, max_size=4).map("\n".join)
TIDY = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "0", "1", "", "-1", "1e9"]), st.sampled_from(["a", "b", "0", "1", "9" * 20]), NUMBERS
    ).map(",".join),
    max_size=5,
).map(lambda rows: "\n".join(["after_task,eval_dataset,accuracy", *rows]))
LITERALS = st.sampled_from([
    "1", "50.0", "nan", "None", "'x'", "[1]", "{}", "{1: 2}", "1e999", "(" * 300, "-1", "True", "1j", "x", "{[]: 1}", "9" * 5000,
])  # fmt: skip
MAMMOTH = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "0", "3", "9" * 9, "9" * 30, "x"]), st.sampled_from(["1", "2", "0", "9" * 9]), LITERALS
    ),
    max_size=4,
).map(lambda cells: "{" + ", ".join(f"'accuracy_{a}_task{b}': {value}" for a, b, value in cells) + "}")
GROUPS = st.lists(st.tuples(st.sampled_from(["'total'", "'00-09'", "'10-19'", "'old'", "5", "x"]), LITERALS), max_size=4)
PYCIL = st.lists(
    st.builds(
        "=> {}: {{'total': {}, {}}}".format,
        st.sampled_from(["CNN", "NME"]),
        LITERALS,
        GROUPS.map(lambda g: ", ".join(f"{k}: {v}" for k, v in g)),
    )
    | LITERALS.map("CNN top1 curve: [{}]".format),
    min_size=1,
    max_size=3,
).map("\n".join)


@settings(MANY, max_examples=250)
@given(
    text=st.one_of(WIDE, TIDY, MAMMOTH, PYCIL, st.text(max_size=40)),
    order=st.none() | st.sampled_from(["a,b", "b,a,c", "", "x"]),
    unit=st.none() | st.sampled_from(["percent", "fraction"]),
)
def test_bad_matrices(folder, text, order, unit):
    path = folder / "matrix.csv"
    path.write_bytes(text.encode("utf-8", "replace"))
    options = [part for name, value in (("--order", order), ("--unit", unit)) if value is not None for part in (name, value)]
    answered_in_order(folder, ["metrics", str(path), *options])
