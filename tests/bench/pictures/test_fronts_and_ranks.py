"""Pareto fronts of cost and accuracy, and critical differences over runs, hold what the records say."""

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, rankdata

from bench.errors import BenchError
from bench.pictures import plots, rankings
from bench.pictures.front import front
from bench.pictures.series import stored_bytes
from bench.pictures.style import look
from bench.reports import ranking, statistics
from bench.results.loaded import Results
from tests.bench.pictures.invented import invented


def without(found: Results, keep) -> Results:
    """The same results without the runs of which `keep` (method, protocol, seed) says no."""
    rows = found.table.apply(lambda row: keep(row["method"], row["protocol"], row["seed"]), axis=1)
    return Results(found.table[rows], found.manifests, found.samples_of)


# -- fronts -----------------------------------------------------------------------------------------------------


def test_front_is_what_nothing_dominates():
    random = np.random.default_rng(0)
    for _ in range(20):
        costs, accuracies = random.integers(1, 9, 15), random.integers(1, 9, 15)
        on = front(costs, accuracies)
        for i in range(15):
            dominated = (
                (costs <= costs[i]) & (accuracies >= accuracies[i]) & ((costs < costs[i]) | (accuracies > accuracies[i]))
            ).any()
            twin = any(costs[i] == costs[j] and accuracies[i] == accuracies[j] for j in on)
            assert (i in on or twin) != dominated
        assert np.all(np.diff(costs[on]) > 0) and np.all(np.diff(accuracies[on]) > 0)


def drawn_stairs(found, kind):
    (picture,) = plots.of_results(found, [kind])
    with look("test"):
        axes = picture.draw().axes[0]
    (line,) = [line for line in axes.lines if line.get_label() == "Pareto front"]
    return picture, axes, line.get_xydata()


@pytest.mark.parametrize(("kind", "cost"), [("cost", lambda one: 4 * one["seconds_per_task"][0]["learn"]), ("storage", None)])
def test_stairs_go_through_the_front_of_the_records_without_upper_bounds(kind, cost):
    found = invented(12, seeds=1, tasks=4)
    picture, axes, stairs = drawn_stairs(found, kind)
    last = found.table[found.table["after_task"] == 3].groupby("method")["value"].mean()
    names = [name for name in last.index if name not in ("zero-shot", "joint", "joint-prompts", "linear-probe")]
    manifests = {name: found.manifests[f"0-{name}-0"] for name in names}
    costs = [cost(own["cost"]) if cost else stored_bytes(own) for own in manifests.values()]
    on = front(costs, list(last[names]), free=last["zero-shot"])
    np.testing.assert_allclose(stairs[::2], [(costs[i], last[names[i]]) for i in on])
    assert stairs[-1, 0] == axes.get_xlim()[1]
    assert "Pareto front, no cheaper method is as accurate (upper bounds aside)" in picture.note


def test_method_that_states_no_exemplars_is_named_and_not_drawn():
    found = invented(5, seeds=1, tasks=2)
    found.manifests["0-slca-0"]["cost"]["exemplar_bytes"] = None
    picture, axes, _ = drawn_stairs(found, "storage")
    assert "left out, cost not known: slca" in picture.note
    assert "slca" not in [text.get_text() for text in axes.texts]


def test_runs_without_manifests_have_no_storage_picture():
    found = invented(3, seeds=1, tasks=2)
    with pytest.raises(BenchError, match="no storage picture of stream-0: the runs were kept without their manifest.json"):
        plots.of_results(Results(found.table, {}, found.samples_of), ["storage"])


# -- critical differences over runs -----------------------------------------------------------------------------


def test_blocks_are_streams_and_seeds_and_the_ranks_are_those_of_scipy():
    found = invented(6, protocols=2, seeds=3, tasks=2)
    ranked = ranking.rank(found.table, over_runs=True)
    assert len(ranked.blocks) == 6 and ranked.protocols == ["stream-0", "stream-1"]
    last = found.table[(found.table["after_task"] == 1) & ~found.table["method"].isin(["joint", "linear-probe"])]
    scores = last.pivot_table(index=["protocol", "seed"], columns="method", values="value").round(12)
    mean_ranks = dict(zip(scores.columns, rankdata(-scores.to_numpy(), axis=1).mean(axis=0)))
    assert ranked.names == sorted(mean_ranks, key=lambda name: (mean_ranks[name], name))
    np.testing.assert_allclose(ranked.ranks, sorted(mean_ranks.values()))
    assert ranked.cd == statistics.critical_difference(4, 6)
    chi2, _ = statistics.friedman(scores.to_numpy())
    assert chi2 == pytest.approx(friedmanchisquare(*scores.to_numpy().T).statistic)


def test_picture_says_n_and_the_test():
    picture = rankings.asked_for(invented(5, protocols=2, seeds=3, tasks=2), "critical-difference")
    assert picture.stem == "critical-difference" and picture.where == "stream-0, stream-1"
    assert "n = 6 runs of each method on 2 streams (class orders x seeds); Friedman p < 0.001" in picture.note
    assert "left out, learned all tasks at once: joint" in picture.note


def test_too_few_runs_are_refused_in_one_line():
    message = (
        "no critical-difference picture: it needs 5 or more streams x class orders x seeds that the methods have in common, 4"
    )
    with pytest.raises(BenchError, match=message):
        plots.of_results(invented(4, protocols=2, seeds=2, tasks=2), ["critical-difference"])
    kinds = {picture.kind for picture in plots.of_results(invented(4, protocols=2, seeds=2, tasks=2))}
    assert "critical-difference" not in kinds and "cost" in kinds


def test_what_lacks_most_is_left_out_first():
    """zero-shot with one seed of six, as it never changes; and a sixth seed that only one method has."""
    found = without(
        invented(5, seeds=6, tasks=2),
        lambda method, _, seed: seed < (1 if method == "zero-shot" else 6 if method == "slca" else 5),
    )
    ranked = ranking.rank(found.table, over_runs=True)
    assert sorted(ranked.names) == ["rail-dual", "ranpac", "slca"] and len(ranked.blocks) == 5
    assert ranked.notes[:2] == [
        "left out, not run with all of these class orders and seeds: zero-shot",
        "1 class order and seed left out that some of the methods lack",
    ]


def test_methods_without_common_seeds_are_refused():
    found = without(invented(3, seeds=2, tasks=2), lambda method, _, seed: seed == (0 if method == "ranpac" else 1))
    with pytest.raises(BenchError, match="two methods that were run with the same class orders and seeds"):
        plots.of_results(found, ["critical-difference"])


def test_critical_difference_longer_than_the_axis_is_an_arrow():
    picture = plots.critical_difference(["a", "b", "c"], [1.5, 2.0, 2.5], 4.0, [(0, 2)], ["p"])
    with look("test"):
        axes = picture.draw().axes[0]
    ruler = [line for line in axes.lines if line.get_marker() == ">"]
    assert [line.get_xdata().tolist() for line in ruler] == [[3]]
