"""Foreign accuracy matrices: every layout gives the same numbers, and what is wrong is said in one line."""

import subprocess
import sys

import numpy as np
import pytest

from bench.errors import BenchError
from bench.reports import foreign_metrics
from bench.results.foreign.accuracy_files import read, read_csv

MATRIX = np.array([[90, 60, 50], [85, 88, 56], [80, 84, 86]]) / 100
LOWER = np.where(np.tril(np.ones((3, 3))), MATRIX, np.nan)

WIDE = {
    "bare": "90,60,50\n85,88,56\n80,84,86\n",
    "fractions": "0.9,0.6,0.5\n0.85,0.88,0.56\n0.8,0.84,0.86\n",
    "percent signs": "90%,60%,50%\n85%,88%,56%\n80%,84%,86%\n",
    "header": "A,B,C\n90,60,50\n85,88,56\n80,84,86\n",
    "index": "A,90,60,50\nB,85,88,56\nC,80,84,86\n",
    "header and index": "trained on,A,B,C\nA,90,60,50\nB,85,88,56\nC,80,84,86\n",
    "header and index that differ": ",A,B,C\nafter A,90,60,50\nafter B,85,88,56\nafter C,80,84,86\n",
    "numbers written by pandas": ",0,1,2\n0,90,60,50\n1,85,88,56\n2,80,84,86\n",
    "header of numbers": "0,1,2\n90,60,50\n85,88,56\n80,84,86\n",
    "index of numbers": "1,90,60,50\n2,85,88,56\n3,80,84,86\n",
    "columns in another order": ",C,A,B\nA,50,90,60\nB,56,85,88\nC,86,80,84\n",
    "semicolons": "90;60;50\n85;88;56\n80;84;86\n",
    "tabs": "90\t60\t50\n85\t88\t56\n80\t84\t86\n",
    "blanks": "90 60 50\n85 88 56\n80 84 86\n",
    "comments and empty lines": "# made by hand\n\n90,60,50\n85,88,56\n\n80,84,86\n",
}
CELLS = [(after, on, round(100 * MATRIX[i, j])) for i, after in enumerate("ABC") for j, on in enumerate("ABC")]
NUMBER = {"A": 0, "B": 1, "C": 2}


def tidy(header: str, cells) -> str:
    return "\n".join([header, *(",".join(map(str, cell)) for cell in cells)])


TIDY = {
    "names": tidy("after_task,eval_dataset,accuracy", CELLS),
    "numbers": tidy("after_task,eval_task,accuracy", [(NUMBER[a], NUMBER[e], v) for a, e, v in CELLS[::-1]]),
    "numbers from one": tidy("after,eval,acc", [(NUMBER[a] + 1, NUMBER[e] + 1, v) for a, e, v in CELLS]),
    "numbers and names": tidy("after_task,eval_dataset,accuracy", [(NUMBER[a], e, v) for a, e, v in CELLS]),
    "numbers beside names": tidy("after_task,eval_task,eval_name,accuracy", [(NUMBER[a], NUMBER[e], e, v) for a, e, v in CELLS]),
    "one method": tidy("method,after_task,eval_dataset,accuracy", [("zscl", *cell) for cell in CELLS]),
}


@pytest.mark.parametrize("text", WIDE.values(), ids=WIDE)
def test_wide_layouts(text):
    (found,) = read_csv(text, "matrix.csv")
    np.testing.assert_allclose(found.matrix, MATRIX)
    assert len(found.tasks) == 3 and found.baseline is None


@pytest.mark.parametrize("text", TIDY.values(), ids=TIDY)
def test_tidy_layouts(text):
    (found,) = read_csv(text, "matrix.csv")
    np.testing.assert_allclose(found.matrix, MATRIX)


@pytest.mark.parametrize(
    "text",
    [
        "90\n85,88\n80,84,86\n",
        "90,,\n85,88,\n80,84,86\n",
        "90,nan,nan\n85,88,-\n80,84,86\n",
        "90,0,0\n85,88,0\n80,84,86\n",
        tidy("after_task,eval_dataset,accuracy", [cell for cell in CELLS if cell[0] >= cell[1]][::-1]),
    ],
)
def test_lower_triangles(text):
    (found,) = read_csv(text, "matrix.csv")
    np.testing.assert_allclose(found.matrix, LOWER)
    values = found.metrics()
    assert values["bwt"] == pytest.approx(-0.07) and values["ci_transfer"] is None and values["mtil_avg"] is None


def test_real_zeros_above_the_diagonal_stay_when_something_else_is_there():
    (found,) = read_csv("90,0,50\n85,88,0\n80,84,86\n", "matrix.csv")
    assert found.matrix[0, 1] == 0 and found.metrics()["ci_transfer"] == pytest.approx(0.125)


def test_a_row_before_the_first_task_gives_forward_transfer():
    wide = ",A,B,C\nzero-shot,70,60,50\nA,90,60,50\nB,85,88,56\nC,80,84,86\n"
    before = [("zero-shot", "A", 70), ("zero-shot", "B", 60), ("zero-shot", "C", 50)]
    long = tidy("after_task,eval_dataset,accuracy", [*CELLS, *before])
    for text in (wide, long):
        (found,) = read_csv(text, "matrix.csv")
        np.testing.assert_allclose(found.matrix, MATRIX)
        assert found.metrics()["forward_transfer"] == pytest.approx(0.03)


def test_numbers_of_images_give_the_image_weighted_metrics():
    images = {"A": 100, "B": 100, "C": 200}
    (found,) = read_csv(tidy("after_task,eval_dataset,accuracy,n", [(*cell, images[cell[1]]) for cell in CELLS]), "x")
    assert found.metrics()["last_samples"] == pytest.approx(0.84)
    assert found.metrics()["image_pooled_transfer"] == pytest.approx(0.5467, abs=1e-4)


def test_several_matrices_in_one_file_are_told_apart():
    rows = [("zscl", 1, *cell) for cell in CELLS] + [("lwf", 2, after, on, value - 10) for after, on, value in CELLS]
    found = read_csv(tidy("method,seed,after_task,eval_dataset,accuracy", rows), "runs.csv")
    assert [one.label for one in found] == ["zscl, seed 1", "lwf, seed 2"]
    np.testing.assert_allclose(found[0].matrix - found[1].matrix, 0.1)


def test_the_order_can_be_given():
    shuffled = [CELLS[k] for k in np.random.default_rng(0).permutation(9)]
    (found,) = read_csv(tidy("after_task,eval_dataset,accuracy", shuffled), "x", order=["A", "B", "C"])
    np.testing.assert_allclose(found.matrix, MATRIX)
    (found,) = read_csv("C,B,A\n86,84,80\n56,88,85\n50,60,90\n", "x", order=["A", "B", "C"])
    np.testing.assert_allclose(found.matrix, MATRIX)


def test_the_unit_is_guessed_and_said_or_given():
    assert "values read as percent" in read_csv(WIDE["bare"], "x")[0].notes
    assert "values read as fractions" in read_csv(WIDE["fractions"], "x")[0].notes
    assert read_csv("0.5,0.2\n0.3,0.9\n", "x", unit="percent")[0].matrix[0, 0] == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "is empty"),
        ("90,60\n", "1 rows and 2 columns"),
        ("90,60,1\n85,88,1\n", "a square is expected"),
        ("90,x\n85,88\n", "'x' is not an accuracy"),
        ("90,101\n85,88\n", "101 is not an accuracy"),
        ("90,-1\n85,88\n", "-1 is not an accuracy"),
        ("90,inf\n85,88\n", "inf is not an accuracy"),
        ("90,85\n,88\n", "transpose it"),
        (",\n,\n", "is empty"),
        ("A,A\n90,60\n85,88\n", "same name"),
        ("run_id,eval_task,after_task,candidates,metric,value\n", "use bench table"),
        ("after_task,eval_task,accuracy\n", "no rows"),
        ("after_task,eval_task,accuracy\n0,0\n", "row 2 has 2 cells"),
        ("after_task,eval_task,accuracy\n0,0,1\n0,0,1\n", "appears twice"),
        ("after_task,eval_task,accuracy\nZ,A,1\nA,A,1\n", "learning order cannot be told"),
        ("after_task,eval_task,accuracy\n7,A,1\n1,B,1\n", "not among the evaluated"),
    ],
)
def test_mistakes_are_named(text, hint):
    with pytest.raises(BenchError, match=hint) as caught:
        read_csv(text, "matrix.csv")
    assert str(caught.value).startswith("matrix.csv") and "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(BenchError, match="cannot be read"):
        read(tmp_path / "absent.csv")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BenchError, match="cannot be read"):
        read(tmp_path / "binary")


def test_report_of_one_matrix():
    text = foreign_metrics.report(read_csv(WIDE["header"], "mine.csv"))
    assert text.startswith("Metrics of mine; 3 tasks\n")
    numbers = {line.split()[0]: line.split()[-1] for line in text.splitlines() if len(line.split()) > 1}
    assert numbers["ci_transfer"] == "55.50" and numbers["mtil_transfer"] == "56.50" and numbers["last"] == "83.33"
    assert "not determined by it: last_samples, avg_samples, forward_transfer, image_pooled_transfer" in text
    assert ["B", "60.00", "77.33", "84.00"] in [line.split() for line in text.splitlines()]


@pytest.mark.parametrize("format", ["markdown", "latex", "html", "csv", "json"])
def test_report_in_other_formats(format):
    text = foreign_metrics.report(read_csv(WIDE["header"], "mine.csv"), format)
    assert "0.555" in text if format in ("csv", "json") else "55.50" in text


def test_matrices_are_read_without_what_is_slow_to_load(tmp_path):
    (tmp_path / "mine.csv").write_text(WIDE["header"])
    code = (
        "import sys; from pathlib import Path; from bench.reports import foreign_metrics; "
        "from bench.results.foreign import accuracy_files; "
        f"foreign_metrics.report(accuracy_files.read(Path({str(tmp_path / 'mine.csv')!r}))); "
        "print([name for name in ('torch', 'pandas', 'scipy', 'matplotlib') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# -- other toolkits ---------------------------------------------------------------------------------------------

MAMMOTH = (
    "{'dataset': 'seq-cifar100', 'model': 'cgil', 'seed': 7, 'lr': 0.03, 'device': device(type='cuda', index=0),"
    " 'forward_transfer': nan, 'accmean_task1': 90.0, 'accuracy_1_task1': 90.0, 'accuracy_1_task2': np.float64(80.0),"
    " 'accuracy_2_task2': 85.0}\n"
)


def write(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    return read(tmp_path / name)


def test_mammoth_results(tmp_path):
    first, second = write(tmp_path, "logs.pyd", MAMMOTH + MAMMOTH.replace("'seed': 7", "'seed': 8"))
    assert (first.label, second.label) == ("cgil on seq-cifar100, seed 7 (line 1)", "cgil on seq-cifar100, seed 8 (line 2)")
    np.testing.assert_allclose(first.matrix, [[0.9, np.nan], [0.8, 0.85]])
    assert first.metrics()["bwt"] == pytest.approx(-0.1)


def test_mammoth_results_are_never_executed(tmp_path):
    trap = tmp_path / "executed"
    text = f"{{'accuracy_1_task1': 90.0, 'x': __import__('pathlib').Path({str(trap)!r}).touch()}}\n"
    write(tmp_path, "logs.pyd", text)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{'accuracy_1_task1': 1\n", "line 1: not a Python literal"),
        ("{1, 2}, {'accuracy_1_task1': 1}\n", "line 1: not a dictionary"),
        ("{'a': 1}\n", "begins as JSON or a Python dictionary"),
        (MAMMOTH + "{'accmean_task1': 3.0}\n", "line 2: no accuracy_J_taskI"),
    ],
)
def test_mammoth_mistakes(tmp_path, text, hint):
    with pytest.raises(BenchError, match=hint):
        write(tmp_path, "logs.pyd", text)


PYCIL = """\
2024-05-01 10:00:00 [trainer.py] => seed: 1993
2024-05-01 10:10:00 [trainer.py] => CNN: {'total': 90.0, '00-09': 90.0, 'old': 0, 'new': 90.0}
2024-05-01 10:10:00 [trainer.py] => NME: {'total': 88.0, '00-09': 88.0, 'old': 0, 'new': 88.0}
2024-05-01 10:10:00 [trainer.py] => CNN top1 curve: [90.0]
2024-05-01 10:20:00 [trainer.py] => CNN: {'total': np.float64(83.0), '00-09': np.float64(80.0), '10-19': 86.0}
2024-05-01 10:20:00 [trainer.py] => CNN: {'total': np.float64(83.0), '00-09': np.float64(80.0), '10-19': 86.0}
2024-05-01 10:20:00 [trainer.py] => NME: {'total': 81.0, '00-09': 82.0, '10-19': 80.0, 'old': 82.0, 'new': 80.0}
2024-05-01 10:20:00 [trainer.py] => CNN top1 curve: [90.0, 83.0]
"""


def test_pycil_logs(tmp_path):
    cnn, nme, again, _ = write(tmp_path, "icarl.log", PYCIL + PYCIL)
    np.testing.assert_allclose(cnn.matrix, [[0.9, np.nan], [0.8, 0.86]])
    np.testing.assert_allclose(nme.matrix, [[0.88, np.nan], [0.82, 0.8]])
    np.testing.assert_allclose(again.matrix, cnn.matrix)
    values = cnn.metrics()
    assert (values["last"], values["avg_samples"]) == pytest.approx((0.83, 0.865))
    assert [one.label for one in (cnn, nme)] == ["icarl, CNN, run 1", "icarl, NME, run 2"]


def test_pycil_curves_without_groups(tmp_path):
    (found,) = write(tmp_path, "x.log", "=> CNN top1 curve: [90.0]\n=> CNN top1 curve: [90.0, 80.0]\n")
    values = {name: value for name, value in found.metrics().items() if value is not None}
    assert values == pytest.approx({"last_samples": 0.8, "avg_samples": 0.85})


def test_pycil_groups_that_are_not_tasks_are_refused(tmp_path):
    with pytest.raises(BenchError, match="line 1: 2 groups of classes after task 1"):
        write(tmp_path, "x.log", "=> CNN: {'total': 9.0, '00-09': 9.0, '10-19': 9.0, 'old': 0, 'new': 9.0}\n")
