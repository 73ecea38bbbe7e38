"""docs/ranking_agreement.py: rank correlations and effects on tiny made records, and its list against the shipped numbers."""

import math

import numpy as np
import pandas as pd
import pytest

from bench.errors import BenchError
from bench.results import published, records
from bench.results.metrics import METRICS
from bench.streams.names import find
from bench.system import registry
from tests.bench.fake_records import fake_records
from tests.docs.test_reference_pages import script

agreement = script("ranking_agreement")

# from the best to the worst of a made paper; clap keeps exemplars there
PAPER = {"cgil": 90.0, "clap": 85.0, "RAPF": 80.0, "coda-prompt": 70.0, "zero-shot": 60.0}


def reported(numbers=PAPER, table="Table 1", metric="last", backbone="ViT-B-16 openai") -> pd.DataFrame:
    common = {"protocol": "cifar100-10x10", "backbone": backbone, "metric": metric, "std": None, "reported_in": "A paper"}
    common |= {"table": table, "certainty": "read"}
    rows = [{**common, "method": method, "value": value} for method, value in numbers.items()]
    return pd.DataFrame(rows)[published.COLUMNS]


def level(method: str, accuracy: float, protocol="mini60-6x10", seeds=(0,), **fixed) -> pd.DataFrame:
    """Runs of a method with about that accuracy on everything, a point more in every further seed."""
    made = fake_records((method,), seeds=seeds, noise=0, protocol=protocol, **fixed)
    made["value"] = accuracy + made["seed"] / 100
    return made


MEASURED = {"cgil": 0.9, "rapf": 0.7, "coda-prompt": 0.75, "zero-shot": 0.5}
WITH_MEMORY = "mini60-6x10+exemplars=20-per-class"


def measured(*more: pd.DataFrame, levels=MEASURED):
    without = [level(method, accuracy) for method, accuracy in levels.items()]
    kept = level("clap", 0.8, protocol=WITH_MEMORY, exemplars="20/class")
    return agreement.Measured(pd.concat([*without, level("clap", 0.1), kept, *more], ignore_index=True))


FACTS = agreement.Facts.read()


# -- Spearman's rho and its test ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_rho_and_p_are_those_of_scipy_with_ties_too(seed):
    from scipy import stats

    random = np.random.default_rng(seed)
    one, other = random.integers(0, 4, 5).astype(float), random.normal(size=5)
    expected = stats.spearmanr(one, other).statistic
    assert agreement.spearman(one, other) == pytest.approx(expected)

    def statistic(part):
        return stats.spearmanr(part, other).statistic

    if seed == 0:  # all 120 orders
        exact = stats.permutation_test((one,), statistic, permutation_type="pairings", n_resamples=math.inf).pvalue
        assert agreement.permutation_p(one, other) == pytest.approx(exact, abs=1e-6)


def test_of_many_methods_permutations_are_drawn_and_p_is_never_zero():
    p = agreement.permutation_p(range(12), range(12))
    assert 0 < p < 1e-4 and p == agreement.permutation_p(range(12), range(12))
    assert agreement.permutation_p([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]) == pytest.approx(2 / 120)
    assert math.isnan(agreement.spearman([1, 1, 1], [1, 2, 3]))


# -- rankings ----------------------------------------------------------------------------------------------------


def test_a_table_is_held_against_runs_with_the_papers_memory_and_names():
    [one] = agreement.agreements(reported(), measured(), FACTS)
    assert list(one.rows) == ["cgil", "clap", "rapf", "coda-prompt", "zero-shot"]
    assert one.rows["clap"] == (85.0, pytest.approx(80.0), WITH_MEMORY)  # not the 10.0 of the stream without memory
    assert one.rows["rapf"][2] == "mini60-6x10"
    assert one.rho == pytest.approx(0.9) and one.runs == 1  # rapf and coda-prompt have changed places
    text = agreement.write([agreement.table_of_rankings([one], measured())], "markdown")
    assert "| 5 | 0.90 | 0.083 | 1 |" in text and WITH_MEMORY in text and "Last" in text


def test_tables_with_fewer_than_five_measured_methods_are_left_out():
    assert not agreement.agreements(reported(), measured(levels={k: v for k, v in MEASURED.items() if k != "cgil"}), FACTS)
    assert not agreement.agreements(reported(metric="params_millions"), measured(), FACTS)


def test_all_tables_together_are_means_over_papers_of_clip():
    second = reported({"cgil": 80.0, "clap": 75.0}, "Table 2")
    foreign = reported({"zero-shot": 99.0}, "Table 3", backbone="vit_b16_224_in21k")
    first, together = agreement.agreements(pd.concat([reported(), second, foreign]), measured(), FACTS)
    assert first.where == "A paper, Table 1" and together.where == agreement.ALL_TABLES
    assert [together.rows[name][0] for name in ("cgil", "clap", "rapf", "zero-shot")] == [85.0, 80.0, 80.0, 60.0]


def test_only_own_recipes_on_all_test_images_count_and_the_others_are_named():
    more = [
        level("cgil", 0.1, overrides="epochs=3"),
        level("rapf", 0.1, limits="train=5"),
        level("zero-shot", 0.9, protocol="mini60-6x10+validation=20%", limits="validation=20%"),
    ]
    found = measured(*more)
    [one] = agreement.agreements(reported(), found, FACTS)
    assert one.rho == pytest.approx(0.9) and one.rows["cgil"][1] == pytest.approx(90)
    assert found.left_out == [
        "cgil on mini60-6x10 (epochs=3)", "rapf on mini60-6x10 (train=5)",
        "zero-shot on mini60-6x10+validation=20% (validation=20%)",
    ]  # fmt: skip
    nothing = agreement.Measured(pd.concat(more))
    assert nothing.runs == {} and agreement.agreements(reported(), nothing, FACTS) == []


def test_two_backbones_are_never_one_ranking():
    with pytest.raises(BenchError, match="mini60-6x10 was run under several conditions"):
        measured(level("cgil", 0.5, backbone="ViT-B-16"))


# -- effects -----------------------------------------------------------------------------------------------------


def verdict(a: pd.DataFrame, b: pd.DataFrame, **more):
    one = {"paper": "A", "effect": "x", "methods": ["cgil", "coop"], "here": "mini60-6x10", "metric": "last", **more}
    return agreement.effect(FACTS, one, reported(), agreement.Measured(pd.concat([a, b])))


def test_an_effect_agrees_by_its_sign_beyond_the_spread_of_the_seeds():
    steady = level("coop", 0.5, seeds=(0, 1, 2))
    found = verdict(level("cgil", 0.7, seeds=(0, 1, 2)), steady)
    assert found.differences == pytest.approx((20, 20, 20)) and found.spread == pytest.approx(0) and found.verdict == "agrees"
    lower = level("cgil", 0.3, seeds=(1, 2, 3))
    assert verdict(lower, steady).differences == pytest.approx((-20, -20))  # pairs of equal seeds only
    assert verdict(lower, steady).verdict == "not shown here"
    assert verdict(lower, steady, reason="too few images").verdict == "not shown here: too few images"
    wild = level("cgil", 0.5, seeds=(0, 1, 2))
    wild["value"] += wild["seed"] / 20 - 0.04
    assert verdict(wild, steady).verdict.startswith("undecided")
    assert verdict(level("cgil", 0.7, protocol="mini-cdcl"), steady).verdict == "not run"


def test_a_published_difference_is_read_and_decides_the_sign():
    published_here = ["cifar100-10x10", "last", "A paper, Table 1"]
    found = verdict(level("cgil", 0.7), level("zero-shot", 0.5), methods=["cgil", "zero-shot"], published=published_here)
    assert found.reported == 30 and found.verdict == "agrees"
    turned = verdict(level("cgil", 0.7), level("zero-shot", 0.5), methods=["zero-shot", "cgil"], published=published_here)
    assert turned.reported == -30 and turned.verdict == "agrees"
    with pytest.raises(BenchError, match="0 published numbers are last of coop"):
        verdict(level("cgil", 0.7), level("coop", 0.5), published=published_here)


def test_every_effect_of_the_list_is_in_the_shipped_numbers_and_can_be_run():
    nothing = agreement.Measured(records.nothing())
    found = [agreement.effect(FACTS, one, published.load(), nothing) for one in FACTS.effects]
    assert len(found) > 20 and sum(one.reported is not None for one in found) > 15
    assert all(one.reported is None or one.reported > 0 for one in found)  # the first is the higher one, as the file says
    for one in found:
        assert one.metric in METRICS and set(one.facts["methods"]) <= set(registry.names("method"))
        for stream in one.streams:
            assert find(stream).name == stream
    text = agreement.write([agreement.table_of_effects(found)], "markdown")
    assert f"not run: {len(found)}" in text and "higher, not read" in text


def test_names_and_streams_of_the_list_are_there():
    written = set(published.load()["method"])
    assert set(FACTS.names) <= written and set(FACTS.names.values()) | FACTS.memory <= set(registry.names("method"))
    assert set(FACTS.streams) <= set(published.load()["protocol"])


def test_the_command_prints_tables_and_answers_wrong_folders_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"^ranking_agreement: .*no such file or folder") as caught:
        agreement.main([str(tmp_path / "nowhere")])
    assert "\n" not in str(caught.value)
    path = tmp_path / "records.csv"
    path.write_text(records.to_csv(level("zero-shot", 0.5).to_dict("records")))
    agreement.main([str(path)])
    agreement.main([str(path), "--effects"])
    printed = capsys.readouterr().out
    assert "left out: tables with fewer than 5" in printed and "Known effects" in printed
