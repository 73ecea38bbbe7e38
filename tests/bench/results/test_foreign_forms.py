"""Accuracy matrices in the forms that programs and people write: read to the last digit, or refused by name."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest

from bench.errors import BenchError
from bench.results.foreign.accuracy_files import read, read_all, read_text

MATRIX = np.array([[90, 60, 50], [85, 88, 56], [80, 84, 86]]) / 100
LOWER = np.where(np.tril(np.ones((3, 3))), MATRIX, np.nan)
WIDE = "t,A,B,C\nA,90,60,50\nB,85,88,56\nC,80,84,86\n"
AVERAGES = {
    "column": "t,A,B,C,Avg.\nA,90,60,50,66.7\nB,85,88,56,76.3\nC,80,84,86,83.3\n",
    "first column": "t,average,A,B,C\nA,66.7,90,60,50\nB,76.3,85,88,56\nC,83.3,80,84,86\n",
    "row": WIDE + "Mean,85,77.3,64\n",
    "first row": "t,A,B,C\noverall,85,77.3,64\nA,90,60,50\nB,85,88,56\nC,80,84,86\n",
    "both": "t,A,B,C,average\nA,90,60,50,66.7\nB,85,88,56,76.3\nC,80,84,86,83.3\naverage,85,77.3,64,75.4\n",
    "no index": "A,B,C,TOTAL\n90,60,50,66.7\n85,88,56,76.3\n80,84,86,83.3\n",
    "counted": ",0,1,2,avg (%)\n0,90,60,50,66.7\n1,85,88,56,76.3\n2,80,84,86,83.3\n",
    "as ZSCL": ",A,B,C,Average\nTransfer,,60,53,56.5\nA,90,60,50,66.7\nB,85,88,56,76.3\nC,80,84,86,83.3\nAvg,85,77.3,64,75.4\n"
    "Last,80,84,86,83.3\n",
    "unnamed column": "90,60,50,66.7\n85,88,56,76.3\n80,84,86,83.3\n",
    "unnamed first column": "66.7,90,60,50\n76.3,85,88,56\n83.3,80,84,86\n",
    "unnamed row": "90,60,50\n85,88,56\n80,84,86\n85,77.33,64\n",
    "unnamed both": "90,60,50,66.7\n85,88,56,76.3\n80,84,86,83.3\n85,77.3,64,75.4\n",
    "blank name of a column": "t,A,B,C,\nA,90,60,50,66.7\nB,85,88,56,76.3\nC,80,84,86,83.3\n",
    "blank name of a row": WIDE + ",85,77.3,64\n",
    "tidy": "after_task,eval_task,acc\n1,1,90\n1,2,60\n1,3,50\n1,average,66.7\n2,1,85\n2,2,88\n2,3,56\n3,1,80\n3,2,84\n3,3,86\n",
    "Markdown": "| after | A | B | C | Mean |\n|---|--:|--:|--:|--:|\n| A | 90 | 60 | 50 | 66.7 |\n| B | 85 | 88 | 56 | 76.3 |\n"
    "| C | 80 | 84 | 86 | 83.3 |\n",
    "JSON": '{"A":{"A":90,"B":60,"C":50,"mean":66.7},"B":{"A":85,"B":88,"C":56,"mean":76.3},'
    '"C":{"A":80,"B":84,"C":86,"mean":83.3}}',
}


@pytest.mark.parametrize("text", AVERAGES.values(), ids=AVERAGES)
def test_averages_are_no_tasks(text):
    (found,) = read_text(text, "sheet.csv")
    np.testing.assert_allclose(found.matrix, MATRIX)
    assert sum("left out, not a task" in note for note in found.notes) >= 1


def test_a_mean_by_chance_stays():
    for text in ("50,50,50\n50,50,50\n50,50,50\n", "90,0,0\n80,70,0\n70,60,65\n", "80,80\n70,70\n", "90\n80,70\n80,60,70\n"):
        (found,) = read_text(text, "x")
        assert len(found.tasks) == len(text.splitlines()) and not any("left out" in note for note in found.notes)


def test_a_square_that_is_one_only_with_its_means_is_refused():
    with pytest.raises(BenchError, match="the last column is the mean of the other columns"):
        read_text("90,60,75\n80,70,75\n75,60,67.5\n", "x")


RECORDS = [{"after_task": t, "eval_task": k, "accuracy": MATRIX[t, k]} for t in range(3) for k in range(3)]
FORMS = {
    "Markdown": "| | A | B | C |\n|:-|-:|-:|-:|\n| after A | **90** | <u>60</u> | 50 |\n"
    "| after B | 85 | 88.0 | 56 |\n"
    "| after C | 80 | 84 | 86 |\n",
    "LaTeX": "\\begin{tabular}{lrrr}\n\\toprule\n & A & B & C \\\\\n\\midrule\nA & \\textbf{90} & 60 & 50 \\\\\n"
    "B & 85 & $88$ & \\underline{56} \\\\\nC & 80 & 84 & 86\\% \\\\\n\\bottomrule\n\\end{tabular}\n".replace("\\%", ""),
    "standard deviations": "A,B,C\n90 ± 0.3,60±1,50 +/- 2\n85 (0.1),88 (±0.2),56\n80,84,86 ± 1.25\n",
    "deviations in LaTeX": " & A & B & C \\\\\nA & 90$\\pm$0.2 & 60 & 50 \\\\\nB & 85 & 88 & 56 \\\\\nC & 80 & 84 & 86 \\\\\n",
    "decimal commas": ";A;B;C\nA;90,0;60,0;50,0\nB;85,0;88,0;56,0\nC;80,0;84,0;86,0\n",
    "decimal commas, no names": "90,0;60,0;50,0\n85,0;88,0;56,0\n80,0;84,0;86,0\n",
    "quoted decimal commas": ',A,B,C\nA,"90,0","60,0","50,0"\nB,"85,0","88,0","56,0"\nC,"80,0","84,0","86,0"\n',
    "a title and empty columns": "My results,,,,\n,,,,\n,A,B,C,\nA,90,60,50,\nB,85,88,56,\nC,80,84,86,\n",
    "CR only": WIDE.replace("\n", "\r"),
    "printed by pandas": "    A   B   C\nA  90  60  50\nB  85  88  56\nC  80  84  86\n",
    "printed by numpy": "Accuracy Matrix:\n" + str(100 * MATRIX) + "\n",
    "printed by numpy, fractions": str(MATRIX),
    "printed by torch": "tensor([[0.90, 0.60, 0.50],\n        [0.85, 0.88, 0.56],\n [0.80, 0.84, 0.86]], device='cuda:0')\n",
    "a Python list": f"acc = {MATRIX.tolist()}\n",
    "numpy scalars": f"{[[np.float64(value) for value in row] for row in MATRIX]}",
    "a Python dictionary": f"{{'acc': {MATRIX.tolist()}}}\n",
    "rows in brackets": "[90, 60, 50]\n[85, 88, 56]\n[80, 84, 86]\n",
    "JSON": json.dumps(MATRIX.tolist()),
    "JSON below a key": json.dumps({"args": {"seed": 1}, "results": {"acc": MATRIX.tolist()}, "loss": [[1, 2], [3, 4]]}),
    "JSON records": json.dumps([{**row, "loss": k / 7} for k, row in enumerate(RECORDS)]),
    "JSON Lines": "\n".join(map(json.dumps, RECORDS)),
    "JSON rows by name": json.dumps({a: dict(zip("ABC", row)) for a, row in zip("ABC", MATRIX.tolist())}),
    "Avalanche": "eval_exp,training_exp,eval_accuracy,eval_loss,forgetting\n"
    + "".join(f"{k},{t},{MATRIX[t, k]},{0.1 * k + t},0\n" for t in range(3) for k in range(3)),
}  # fmt: skip


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_forms_of_text(text, tmp_path):
    (tmp_path / "file").write_bytes(text.encode())
    (found,) = read(tmp_path / "file")
    np.testing.assert_allclose(found.matrix, MATRIX)
    assert not any("mammoth" in note for note in found.notes)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_encodings_of_spreadsheets(encoding, tmp_path):
    first = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "x.csv").write_bytes((first + WIDE.replace(",", "\t").replace("A", "Ä")).encode(encoding))
    (found,) = read(tmp_path / "x.csv")
    np.testing.assert_allclose(found.matrix, MATRIX)
    assert found.tasks == ["Ä", "B", "C"]


LOWERS = ["[[90], [85, 88], [80, 84, 86]]", "[[90, null, null], [85, 88, NaN], [80, 84, 86]]",
          "[[90. 0. 0.]\n [85. 88. 0.]\n [80. 84. 86.]]",
          "Accuracy Matrix (CNN):\n[[90. 85. 80.]\n [ 0. 88. 84.]\n [ 0. 0. 86.]]\n",
          "[[90]]\nnext\n[[90, 0], [85, 88]]\nnext\n[[90, 0, 0], [85, 88, 0], [80, 84, 86]]\n"]  # fmt: skip


@pytest.mark.parametrize("text", LOWERS)
def test_lower_triangles_in_brackets(text):
    (found,) = read_text(text, "x")
    np.testing.assert_allclose(found.matrix, LOWER)


def test_numpy_files(tmp_path):
    for name, array in (("a.npy", MATRIX), ("b.npy", (100 * MATRIX).round().astype(int)), ("c.npy", MATRIX.astype(">f8"))):
        np.save(tmp_path / name, array)
        np.testing.assert_allclose(read(tmp_path / name)[0].matrix, MATRIX)
    np.savez(tmp_path / "d.npz", acc=MATRIX, n=np.arange(3))
    np.testing.assert_allclose(read(tmp_path / "d.npz")[0].matrix, MATRIX)


def test_percent_signs_say_the_unit():
    assert read_text("0.9%,0.8 %\n0.7%,0.5%\n", "x")[0].matrix[0, 0] == pytest.approx(0.009)
    with pytest.raises(BenchError, match="some accuracies have a percent sign"):
        read_text("90%,0.8\n70%,50%\n", "x")
    with pytest.raises(BenchError, match="say which with --unit"):
        read_text("0.9,1.2\n0.8,0.7\n", "x")


def packed(name: str, content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def saved(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


NAMED = {
    "xlsx": (packed("xl/workbook.xml"), r"an Excel workbook \(.xlsx\); export the sheet as CSV"),
    "pt": (packed("archive/data.pkl"), "a PyTorch checkpoint"),
    "zip": (packed("a.csv"), "a ZIP archive; unpack it"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1....", "an old Excel workbook"),
    "gz": (b"\x1f\x8b\x08..", "compressed with gzip"),
    "pickle": (pickle.dumps([[1]]), "a Python pickle; unpickling runs"),
    "pickle of protocol 0": (pickle.dumps([[1]], 0), "a Python pickle"),
    "hdf5": (b"\x89HDF\r\n\x1a\n...", "an HDF5 file"),
    "parquet": (b"PAR1....", "a Parquet file"),
    "pdf": (b"%PDF-1.4", "a PDF document"),
    "png": (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    "binary": (bytes(range(256)), "a binary file of an unknown kind"),
    "html": (b"<!DOCTYPE html><table></table>", "a web page"),
    "objects": (saved(np.array([[1, None]], dtype=object), allow_pickle=True), "an array of Python objects"),
    "vector": (saved(np.arange(3)), "an array of shape 3"),
    "damaged npy": (saved(MATRIX)[:90], "a damaged .npy file"),
    "empty": (b"", "is empty"),
    "cut": (b"[[0.1 0.2 ... 0.5]\n ...\n [0.1 0.2 ... 0.5]]", "printed cut short"),
    "deep": (b"[" * 100_000, "nested too deeply"),
    "several": (b'{"x": [[0.9, 0.1], [0.8, 0.3]], "y": [[1, 2], [3, 4]]}', r"JSON with 2 matrices \(x, y\)"),
    "no JSON": (b'{"a": 1,}', "neither JSON nor a list"),
    "no matrix": (b'{"a": 1}', "JSON without an accuracy matrix"),
    "list": (b"[90, 80]", "JSON without an accuracy matrix"),
    "training log": (b"training_exp,epoch,training_accuracy,val_accuracy\n0,0,1,1\n", "give eval_results.csv"),
    "methods": (b"| method | Last | Avg |\n|---|---|---|\n| coop | 80 | 90 |\n", "one method a row"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "hint"), NAMED.values(), ids=NAMED)
def test_what_cannot_be_read_is_named(data, hint, tmp_path):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(BenchError, match=hint) as caught:
        read(tmp_path / "file")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 and "mammoth" not in str(caught.value)


def test_a_folder_is_named(tmp_path):
    with pytest.raises(BenchError, match="is a folder"):
        read(tmp_path)


def test_several_files_of_one_name_are_told_apart(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "acc.csv").write_text(WIDE)
    labels = [one.label for _, one in read_all([tmp_path / "a" / "acc.csv", tmp_path / "b" / "acc.csv"])]
    assert labels == [f"{tmp_path}/a/acc.csv: acc", f"{tmp_path}/b/acc.csv: acc"]


# -- logs of the PyCIL family -----------------------------------------------------------------------------------

ROW = "=> CNN: {'total': 51.5, '00-09': 48.6, '10-19': 34.0, '20-29': 51.8, 'old': 50.4, 'new': 51.8}\n"


def values(text: str) -> dict:
    (found,) = read_text(text, "x.log")
    return {name: round(100 * value, 2) for name, value in found.metrics().items() if value is not None}


def test_the_end_of_a_log_gives_what_it_determines():
    curves = "=> CNN top1 curve: [86.5, 71.3, 51.5]\n=> CNN top5 curve: [99.0, 94.2, 91.7]\n"
    last = {"last": 44.8, "last_samples": 51.5, "mtil_last": 44.8}
    assert values(ROW + curves) == {**last, "avg_samples": 69.77}
    assert values(ROW) == last
    before = "=> CNN: {'total': 71.3, '00-09': 80.0, '10-19': 62.6, 'old': 0.0, 'new': 62.6}\n"
    assert values(before + ROW)["last"] == 44.8
    assert "no lines of task 1;" in " ".join(read_text(before + ROW, "x")[0].notes)


def test_a_log_whose_groups_are_no_tasks_still_gives_its_curve():
    text = "=> CNN: {'total': 80.0, '00-09': 81.0, '10-19': 79.0, 'old': 0, 'new': 80.0}\n=> CNN top1 curve: [80.0]\n" + ROW
    assert values(text + "=> CNN top1 curve: [80.0, 51.5]\n") == {"last_samples": 51.5, "avg_samples": 65.75}


def test_runs_that_were_appended_are_told_apart():
    one = "=> CNN: {'total': 90.0, '00-09': 90.0, 'old': 0, 'new': 90.0}\n=> CNN top1 curve: [90.0]\n"
    first, second = read_text(one + one.replace("90.0", "70.0"), "x.log")
    assert (first.metrics()["last"], second.metrics()["last"]) == (0.9, 0.7)


# -- labels that are numbers, orders that an alphabet made --------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "     0    1\n0  0.9  NaN\n1  0.8  0.85\n",
        "   1    2\n1  0.9  NaN\n2  0.8  0.85\n",
        ",10,20\n10,0.9,\n20,0.8,0.85\n",
        ",7,3\n7,0.9,\n3,0.8,0.85\n",
        '{"10": {"10": 0.9}, "20": {"10": 0.8, "20": 0.85}}',
    ],
)
def test_numbers_around_a_square_name_its_tasks(tmp_path, text):
    path = tmp_path / "labelled.txt"
    path.write_text(text)
    [found] = read(path)
    np.testing.assert_allclose(found.matrix, [[0.9, np.nan], [0.8, 0.85]])


@pytest.mark.parametrize("name", ["task_{}", "{}", "t{}", "after_{}"])
@pytest.mark.parametrize("form", ["json", "wide"])
def test_an_alphabetical_order_of_numbered_tasks_is_not_the_learning_order(tmp_path, name, form):
    tasks = 12
    truth = np.random.default_rng(0).uniform(0.1, 0.9, (tasks, tasks)).round(4)
    names = [name.format(k) for k in range(tasks)]
    cells = {row: dict(zip(names, line.tolist())) for row, line in zip(names, truth)}
    ordered = sorted(names)
    path = tmp_path / "sorted.csv"
    if form == "json":
        path.write_text(json.dumps(cells, sort_keys=True))
    else:
        lines = [",".join([row, *(str(cells[row][column]) for column in ordered)]) for row in ordered]
        path.write_text("\n".join([",".join(["", *ordered]), *lines]))
    [found] = read(path)
    np.testing.assert_allclose(found.matrix, truth)
    assert any("alphabetical order" in note for note in found.notes)
