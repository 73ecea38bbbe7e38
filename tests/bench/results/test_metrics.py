"""Metrics of accuracy matrices: worked examples, properties, and what is not available."""

import doctest

import numpy as np
import pytest

from bench.errors import BenchError
from bench.results import accuracy, metrics, run_data
from tests.bench.fake_records import fake_records

SPEC = np.array([[90, 60, 50], [85, 88, 56], [80, 84, 86]]) / 100
OF_MATRIX = [
    accuracy.last, accuracy.avg, accuracy.avg_cells, accuracy.bwt, accuracy.bwt_all_moments, accuracy.forgetting,
    accuracy.forgetting_from_start, accuracy.forgetting_nonnegative, accuracy.ci_transfer, accuracy.column_mean_transfer,
    accuracy.flat_mean_transfer, accuracy.all_cells_avg,
]  # fmt: skip
OF_MATRIX_AND_IMAGES = [accuracy.last_samples, accuracy.avg_samples, accuracy.image_pooled_transfer]


def random_matrix(tasks: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(tasks, tasks))


def test_docstring_examples():
    result = doctest.testmod(accuracy)
    assert result.attempted > 0 and result.failed == 0


def test_every_metric_of_a_matrix_has_an_example():
    for function in [*OF_MATRIX, *OF_MATRIX_AND_IMAGES, accuracy.forward_transfer]:
        assert ">>>" in function.__doc__, function.__name__


def test_example_of_the_ci_transfer_specification():
    assert accuracy.ci_transfer(SPEC) == pytest.approx(0.555)
    assert accuracy.last(SPEC) == pytest.approx(0.8333, abs=1e-4)
    assert accuracy.column_mean_transfer(SPEC) == pytest.approx(0.565)
    assert accuracy.flat_mean_transfer(SPEC) == pytest.approx(0.5533, abs=1e-4)
    assert accuracy.forward_transfer(SPEC, [np.nan, 0.60, 0.50]) == pytest.approx(0.03)
    zero_shot = np.tile([0.7, 0.6, 0.5], (3, 1))
    assert accuracy.ci_transfer(zero_shot) == pytest.approx(0.525)
    assert accuracy.last(zero_shot) == pytest.approx(0.60)


def test_example_of_the_mtil_specification():
    matrix = np.array([[60, 40, 30], [50, 90, 20], [40, 80, 70]]) / 100
    assert accuracy.transfer_per_task(matrix)[1:] == pytest.approx([0.40, 0.25])
    assert accuracy.column_mean_transfer(matrix) == pytest.approx(0.325)
    assert accuracy.avg_per_task(matrix) == pytest.approx([0.5, 0.7, 0.4])
    assert accuracy.all_cells_avg(matrix) == pytest.approx(0.5333, abs=1e-4)
    assert accuracy.last(matrix) == pytest.approx(0.6333, abs=1e-4)


def test_example_of_the_clap_specification():
    matrix = np.array([[0.9, np.nan], [0.7, 0.8]])
    assert accuracy.after_each_task(matrix) == pytest.approx([0.9, 0.75])
    assert accuracy.last(matrix) == pytest.approx(0.75)
    assert accuracy.avg(matrix) == pytest.approx(0.825)
    assert accuracy.bwt(matrix) == pytest.approx(-0.2)


@pytest.mark.parametrize("tasks", [2, 5, 11])
def test_zero_shot_ci_transfer_is_a_weighted_mean_of_its_accuracies(tasks):
    constant = np.random.default_rng(tasks).uniform(size=tasks)
    weights = [sum(1 / (tasks - t) for t in range(1, k)) / (tasks - 1) for k in range(1, tasks + 1)]
    assert sum(weights) == pytest.approx(1)
    assert accuracy.ci_transfer(np.tile(constant, (tasks, 1))) == pytest.approx(float(np.dot(weights, constant)))


def test_with_two_tasks_all_transfers_are_the_same_cell():
    matrix, n = random_matrix(2), np.array([10, 70])
    found = [function(matrix) for function in (accuracy.ci_transfer, accuracy.column_mean_transfer, accuracy.flat_mean_transfer)]
    assert [*found, accuracy.image_pooled_transfer(matrix, n)] == pytest.approx([matrix[0, 1]] * 4)


@pytest.mark.parametrize("function", OF_MATRIX, ids=lambda f: f.__name__)
def test_input_is_never_changed(function):
    matrix = random_matrix(5)
    matrix.flags.writeable = False
    before = matrix.copy()
    function(matrix)
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.parametrize("function", OF_MATRIX_AND_IMAGES, ids=lambda f: f.__name__)
def test_equal_image_counts_or_any_multiple_of_them_change_nothing(function):
    matrix, n = random_matrix(6), np.arange(1, 7)
    matrix.flags.writeable = n.flags.writeable = False
    assert function(matrix, n) == pytest.approx(function(matrix, 10 * n))
    unweighted = {"last_samples": "last", "avg_samples": "avg", "image_pooled_transfer": "ci_transfer"}[function.__name__]
    assert function(matrix, np.full(6, 33)) == pytest.approx(getattr(accuracy, unweighted)(matrix))


@pytest.mark.parametrize("function", OF_MATRIX, ids=lambda f: f.__name__)
def test_metrics_are_homogeneous_so_percent_and_fractions_agree(function):
    matrix = random_matrix(4)
    assert function(100 * matrix) == pytest.approx(100 * function(matrix))


def test_mtil_metrics_of_permuted_tasks_equal_those_of_the_permuted_matrix():
    matrix, permutation = random_matrix(5), np.random.default_rng(1).permutation(5)
    permuted = matrix[np.ix_(permutation, permutation)]
    assert accuracy.all_cells_avg(permuted) == pytest.approx(accuracy.all_cells_avg(matrix))
    np.testing.assert_allclose(accuracy.avg_per_task(permuted), accuracy.avg_per_task(matrix)[permutation])


def test_forgetting_variants_are_ordered_and_bwt_is_its_lower_bound():
    for seed in range(20):
        matrix = random_matrix(6, seed)
        assert accuracy.forgetting(matrix) <= accuracy.forgetting_from_start(matrix) + 1e-12
        assert accuracy.forgetting(matrix) <= accuracy.forgetting_nonnegative(matrix) + 1e-12
        assert accuracy.forgetting_nonnegative(matrix) >= 0
        assert -accuracy.bwt(matrix) <= accuracy.forgetting(matrix) + 1e-12


@pytest.mark.parametrize("function", OF_MATRIX, ids=lambda f: f.__name__)
def test_a_missing_cell_that_the_formula_needs_makes_it_not_available(function):
    full = random_matrix(4)
    needed = 0
    for cell in np.ndindex(4, 4):
        matrix = full.copy()
        matrix[cell] = np.nan
        value = function(matrix)
        assert np.isnan(value) or value == function(full)  # never a mean over what is left
        needed += np.isnan(value)
    assert needed >= 4


def test_one_task_has_no_transfer_and_no_forgetting():
    run = run_data.RunData("class-incremental", {"seen": np.array([[0.7]]), "task": np.array([[0.7]])}, np.array([10.0]))
    values = metrics.of_run(run)
    assert (values["last"], values["avg"], values["avg_samples"]) == (0.7, 0.7, 0.7)
    for name in ("bwt", "forgetting", "ci_transfer", "ci_transfer_task", "mtil_transfer", "image_pooled_transfer", "auroc"):
        assert values[name] is None


# -- from records -----------------------------------------------------------------------------------------------


def one_run(**options):
    return fake_records(methods=("cgil",), seeds=(0,), **options)


def test_matrices_hold_each_record_in_its_cell():
    records = one_run(tasks=4)
    found, n = run_data.matrices(records)
    assert set(found) == {"seen", "task", "all", "future"} and n.tolist() == [200] * 4
    for row in records.itertuples():
        assert found[row.candidates][row.after_task, row.eval_task] == row.value
    assert sum(int((~np.isnan(matrix)).sum()) for matrix in found.values()) == len(records)


def test_computing_changes_no_record_and_ignores_row_order():
    records = one_run(tasks=4)
    before = records.copy(deep=True)
    values = metrics.compute(records)
    shuffled = metrics.compute(records.sample(frac=1, random_state=3))
    assert records.equals(before) and values == shuffled
    assert set(values) == set(metrics.METRICS)


def test_task_incremental_runs_are_measured_among_the_tasks_own_classes():
    records = one_run(scenario="task-incremental")
    values, (found, _) = metrics.compute(records), run_data.matrices(records)
    assert values["last"] == values["mtil_last"] == pytest.approx(accuracy.last(found["task"]))
    assert values["bwt"] == pytest.approx(accuracy.bwt(found["task"]))


def test_a_joint_run_has_a_last_and_nothing_else():
    values = metrics.compute(fake_records(methods=("joint",), seeds=(0,)))
    assert {name for name, value in values.items() if value is not None} == {"last", "last_samples", "last_task", "mtil_last"}


def test_forward_transfer_needs_a_baseline():
    records = one_run()
    assert metrics.compute(records)["forward_transfer"] is None
    future = run_data.matrices(records)[0]["all"]
    with_baseline = metrics.compute(records, baseline=np.array([np.nan, 0.3, 0.4]))["forward_transfer"]
    assert with_baseline == pytest.approx((future[0, 1] - 0.3 + future[1, 2] - 0.4) / 2)


def test_runs_that_disagree_about_their_images_are_refused():
    records = one_run()
    records.loc[3, "n"] = 7
    with pytest.raises(BenchError, match="disagree"):
        metrics.compute(records)


def test_several_runs_are_not_taken_for_one():
    with pytest.raises(ValueError, match="one run"):
        run_data.matrices(fake_records(methods=("cgil",), seeds=(0, 1)))


def test_unknown_metric_is_answered_with_close_names():
    with pytest.raises(BenchError, match="ci_transfer"):
        metrics.find("ci_transfr")


# -- task-agnostic streams --------------------------------------------------------------------------------------


def agnostic_run(matrix, candidates="all", **facts) -> run_data.RunData:
    empty = {name: np.full(np.shape(matrix), np.nan) for name in ("seen", "task", "all", "seen+task")}
    return run_data.RunData("task-agnostic", empty | {candidates: np.asarray(matrix)}, np.full(len(matrix), 10.0), **facts)


@pytest.mark.parametrize("candidates", ["all", "seen+task"])
def test_transfer_average_and_last_of_a_task_agnostic_run(candidates):
    """Whatever kinds of candidates other runs of the same records have: theirs are empty here."""
    values = metrics.of_run(agnostic_run(SPEC, candidates))
    assert values["agnostic_transfer"] == pytest.approx(0.565)
    assert values["agnostic_avg"] == pytest.approx(SPEC.mean())
    assert values["last"] == pytest.approx(SPEC[-1].mean())
    assert values["bwt"] == pytest.approx(accuracy.bwt(SPEC))
    assert values["mtil_transfer"] is None and values["zero_shot_transfer"] is None


def test_the_zero_shot_transfer_leaves_out_the_first_task():
    zero_shot = np.tile([0.2, 0.6, 0.7], (3, 1))
    values = metrics.of_run(agnostic_run(SPEC, zero_shot=zero_shot))
    assert values["zero_shot_transfer"] == pytest.approx(0.65)  # the mean over all tasks is 0.5


def test_every_table_of_a_task_agnostic_stream_has_zero_shots_transfer_beside_transfer():
    shown = metrics.DEFAULTS["task-agnostic"]
    assert shown.index("zero_shot_transfer") == shown.index("agnostic_transfer") + 1
