"""Pictures hold the numbers of the records, and the same records give the same bytes."""

import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bench.commands import main
from bench.errors import BenchError
from bench.pictures import figures, plots, series
from bench.pictures import style as drawing
from bench.results import accuracy, calibration
from bench.results.groups import arranged
from bench.results.loaded import load
from bench.results.metrics import METRICS
from tests.results_folder import write_run

COOP = [[[0.9, 0.6, 0.5], [0.8, 0.9, 0.5], [0.7, 0.8, 0.9]], [[0.7, 0.4, 0.5], [0.6, 0.7, 0.5], [0.5, 0.6, 0.7]]]
CGIL = [[0.8, 0.7, 0.6], [0.8, 0.8, 0.7], [0.8, 0.8, 0.8]]
FLAT = np.full((3, 3), 0.5).tolist()


@pytest.fixture
def folder(tmp_path):
    """zero-shot, coop (two seeds), cgil, and joint, which has its last row only."""
    out = tmp_path / "results"
    write_run(out, FLAT, method="zero-shot")
    for seed, matrix in enumerate(COOP):
        write_run(out, matrix, seed=seed, method="coop")
    write_run(out, CGIL, method="cgil")
    write_run(out, np.full((3, 3), 0.9).tolist(), method="joint", joint=True)
    return out


def pictures(folder, *kinds):
    found = load([folder])
    groups = arranged(found)
    looks = plots.method_styles(groups)
    return [picture for group in groups for picture in plots.of_group(group, found, looks, kinds)]


def drawn(picture):
    with drawing.look("test"):
        return picture.draw()


def line(figure, label):
    return next(line for line in figure.axes[0].lines if line.get_label() == label)


def test_accuracy_curve_is_the_mean_over_seeds(folder):
    (picture,) = pictures(folder, "accuracy")
    x, y = line(drawn(picture), "coop").get_data()
    assert list(x) == [1, 2, 3]
    # after two tasks: mean of (0.8 + 0.9) / 2 and (0.6 + 0.7) / 2
    np.testing.assert_allclose(y, [0.8, 0.75, 0.7])
    np.testing.assert_allclose(y, np.mean([accuracy.after_each_task(np.array(matrix)) for matrix in COOP], axis=0))


def test_spread_is_the_standard_deviation_over_seeds(folder):
    with_seeds = arranged(load([folder]))[0].method("coop")
    _, spread = series.mean_and_spread(np.array([accuracy.after_each_task(run.learned) for run in with_seeds.runs]))
    np.testing.assert_allclose(spread, 0.2 / np.sqrt(2))  # the two seeds differ by 0.2 everywhere


def test_method_that_learned_all_at_once_has_one_hollow_point(folder):
    joint = line(drawn(pictures(folder, "accuracy")[0]), "joint")
    assert joint.get_xydata().tolist() == [[3, 0.9]]
    assert joint.get_markerfacecolor() == "none"


def test_future_curve_averages_to_ci_transfer(folder):
    figure = drawn(pictures(folder, "future")[0])
    y = line(figure, "cgil").get_ydata()
    np.testing.assert_allclose(y, [0.65, 0.7])  # (0.7 + 0.6) / 2, then 0.7
    assert np.mean(y) == pytest.approx(accuracy.ci_transfer(np.array(CGIL)))
    assert "joint" not in [other.get_label() for other in figure.axes[0].lines]


def test_method_without_text_side_is_not_drawn_on_future_tasks(tmp_path):
    write_run(tmp_path, CGIL, method="nearest-mean", zero_shot=False)
    assert pictures(tmp_path)[0].kind == "accuracy"
    with pytest.raises(BenchError, match="no future picture of toy-3x2: no method was scored on future tasks"):
        pictures(tmp_path, "future")


def test_heat_map_shows_the_mean_matrix_in_percent(folder):
    by_title = {picture.title: picture for picture in pictures(folder, "matrix")}
    axes = drawn(by_title["Accuracy of coop on each task, in percent"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["80", "50", "50", "70", "80", "50", "60", "70", "80"]
    joint = drawn(by_title["Accuracy of joint on each task, in percent"]).axes[0]
    assert [label.get_text() for label in joint.get_yticklabels()] == ["after task 2"]


def test_task_incremental_matrix_uses_the_tasks_own_classes(tmp_path):
    write_run(tmp_path, CGIL, method="cgil", scenario="task-incremental")
    (picture,) = pictures(tmp_path, "matrix")
    assert "own classes compete" in picture.note
    np.testing.assert_allclose(series.mean_matrix(arranged(load([tmp_path]))[0].methods[0]), CGIL)


def test_reliability_points_give_the_ece_of_the_metric():
    random = np.random.default_rng(0)
    confidence = random.uniform(0, 1, 500)
    correct = random.uniform(0, 1, 500) < confidence**2
    mean, hit, share = series.bins(confidence, correct)
    assert np.nansum(share * abs(hit - mean)) == pytest.approx(calibration.ece(confidence, correct))
    assert share.sum() == pytest.approx(1)


def test_reliability_diagram_prints_the_ece_of_the_runs(folder):
    picture = next(picture for picture in pictures(folder, "reliability") if picture.title == "Reliability of cgil")
    found = load([folder])
    run = arranged(found)[0].method("cgil").with_samples(found.samples_of).runs[0]
    assert f"ECE {100 * METRICS['ece'].function(run):.1f}%" in [text.get_text() for text in drawn(picture).axes[0].texts]
    # 80% of the images are right and have confidence 0.9, the others 0.6
    assert METRICS["ece"].function(run) == pytest.approx(0.8 * 0.1 + 0.2 * 0.6)


def test_runs_without_samples_have_no_reliability_diagram(tmp_path):
    (write_run(tmp_path, CGIL) / "samples.safetensors").unlink()
    assert "reliability" not in [picture.kind for picture in pictures(tmp_path)]
    with pytest.raises(BenchError, match="kept without their samples.safetensors"):
        pictures(tmp_path, "reliability")


def test_cost_point_is_training_seconds_and_last_accuracy(folder):
    figure = drawn(pictures(folder, "cost")[0])
    assert line(figure, "zero-shot").get_ydata()[0] == 0.5
    points = {container.get_label(): container[0].get_xydata().tolist() for container in figure.axes[0].containers}
    assert points["cgil"] == [[9.0, pytest.approx(0.8)]]  # three tasks of 3 s each
    assert points["joint"] == [[3.0, pytest.approx(0.9)]]


def test_zero_shot_is_a_grey_reference_and_styles_do_not_depend_on_the_order_of_runs():
    looks = drawing.styles(["a", "b"])
    assert looks["a"].colour != looks["b"].colour and looks["a"].marker != looks["b"].marker
    many = drawing.styles([f"method {i}" for i in range(40)])
    assert len({(style.colour, style.marker, style.dash) for style in many.values()}) == 40
    assert drawing.REFERENCE.colour == drawing.MUTED


def test_protocols_and_conditions_are_never_drawn_together(tmp_path):
    write_run(tmp_path, CGIL)
    write_run(tmp_path, COOP[0], limits="train=5")
    write_run(tmp_path, FLAT, protocol="other")
    assert sorted(picture.stem for picture in pictures(tmp_path, "accuracy")) == [
        "other_accuracy", "toy-3x2_limits=none_accuracy", "toy-3x2_limits=train=5_accuracy",
    ]  # fmt: skip


def test_names_that_differ_in_punctuation_only_get_files_of_their_own(tmp_path):
    write_run(tmp_path, CGIL, overrides="rate=-1")
    write_run(tmp_path, COOP[0], overrides="rate=1")
    written = plots.plot([tmp_path], tmp_path / "pictures", ["matrix"])
    assert len(set(written)) == 2 and all(file.exists() for file in written)


@pytest.mark.parametrize("format", plots.FORMATS)
def test_same_records_give_the_same_bytes(folder, tmp_path, format):
    first, again = (plots.plot([folder], tmp_path / name, ["accuracy", "cost"], format) for name in ("first", "again"))
    assert [file.name for file in first] == [f"toy-3x2_accuracy.{format}", f"toy-3x2_cost.{format}"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again]


def test_critical_difference_places_names_at_their_ranks(tmp_path):
    picture = plots.critical_difference(["a", "b", "c"], [1.2, 2.0, 2.8], 0.9, [(0, 1), (1, 2)], ["p", "q"])
    figure = drawn(picture)
    assert {"a 1.20 ", " 2.80 c", "b 2.00 ", "CD = 0.90"} <= {text.get_text() for text in figure.axes[0].texts}
    bars = [line.get_xdata().tolist() for line in figure.axes[0].lines if line.get_linewidth() > 3]
    assert bars == [[1.2, 2.0], [2.0, 2.8]]
    assert plots.save(picture, tmp_path, "svg").name == "ranking.svg"


def test_ranking_is_drawn_from_five_protocols_on(tmp_path):
    for number in range(5):
        for method, matrix in (("coop", COOP[0]), ("cgil", CGIL), ("zero-shot", FLAT)):
            write_run(tmp_path, matrix, method=method, protocol=f"stream-{number}")
        picture = plots.ranking_picture(load([tmp_path]))
        assert (picture is not None) == (number == 4)
    assert picture.where == "stream-0, stream-1, stream-2, stream-3, stream-4"
    assert plots.plot([tmp_path], tmp_path / "pictures", ["ranking"])[0].name == "ranking.png"


def test_command_draws_for_a_paper(folder, tmp_path):
    options = ["--kind", "accuracy", "--methods", "coop,cgil", "--highlight", "cgil", "--size", "3.3x2.5", "--title", "none"]
    answer = CliRunner().invoke(main.main, ["plot", str(folder), "-o", str(tmp_path / "paper"), *options])
    assert answer.exit_code == 0, answer.output
    with Image.open(answer.output.strip()) as picture:
        assert picture.size == (660, 500)  # 200 dots an inch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "3.3"], "--size '3.3': width and height in inches are wanted, for instance 3.3x2.5"),
        (["--size", "0.1x200"], "--size 0.1x200: a side is 1 to 40 inches long"),
        (["--size", "1x1", "--kind", "accuracy"], "toy-3x2_accuracy: what it says does not fit into 1x1 inches"),
        (["--title", "two\nlines"], "--title: a text in one line is wanted, or 'none'"),
        (["--highlight", "cgli"], "unknown method of these results 'cgli'; did you mean cgil?"),
        (["--methods", ","], "an empty list of names was given"),
        (["--kind", "critical-difference"], "no critical-difference picture: it needs 5 or more streams"),
    ],
)
def test_command_says_in_one_line_what_is_wrong(folder, tmp_path, options, message):
    answer = CliRunner().invoke(main.main, ["plot", str(folder), "-o", str(tmp_path / "paper"), *options])
    assert answer.exit_code == 2
    assert message in answer.output and len(answer.output.strip().splitlines()) == 1


def test_dollar_signs_and_markup_in_names_are_plain_text(tmp_path):
    write_run(tmp_path, CGIL, method="$x_1$ <b>")
    (file,) = plots.plot([tmp_path], tmp_path / "pictures", ["accuracy"], "svg")
    assert "<b>" not in file.read_text()
    assert line(drawn(pictures(tmp_path, "accuracy")[0]), "$x_1$ <b>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": ["acuracy"]}, "unknown kind of picture 'acuracy'; did you mean accuracy?"),
        ({"format": "gif"}, "unknown format 'gif'; known: png, svg, pdf"),
        ({"kinds": ["ranking"]}, "no ranking picture: it needs 5 protocols or more"),
    ],
)
def test_bad_input_is_one_line(folder, tmp_path, arguments, message):
    with pytest.raises(BenchError) as error:
        plots.plot([folder], tmp_path / "pictures", **arguments)
    assert str(error.value).startswith(message)
    assert not (tmp_path / "pictures").exists()


def test_folder_without_runs_and_file_as_folder_are_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match="no finished run there yet"):
        plots.plot([tmp_path / "empty"], tmp_path / "pictures")
    (tmp_path / "taken").write_text("")
    with pytest.raises(BenchError, match="is a file"):
        plots.plot([folder], tmp_path / "taken")


def test_large_matrix_has_a_colour_bar_of_vectors(tmp_path):
    with drawing.look("test"):
        figure = figures.heat_map(np.linspace(0, 1, 400).reshape(20, 20), [f"task {i}" for i in range(20)])
        assert len(figure.axes) == 2
        assert b"<image" not in drawing.encode(figure, "svg")


def test_module_does_not_import_torch():
    code = (
        "import sys; from bench.pictures import plots; from bench.pictures.page import write; "
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
