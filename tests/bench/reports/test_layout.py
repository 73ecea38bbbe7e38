"""Tables for papers: rows that were chosen, digits, captions, labels, and the marks of the paired comparison."""

import csv
import io
import re

import numpy as np
import pytest
from click.testing import CliRunner

from bench.commands.main import main
from bench.errors import BenchError
from bench.reports import significance, statistics, tables
from bench.reports.compare import compare
from bench.reports.layout import Layout
from bench.results import published
from bench.results.groups import comparable
from tests.bench.fake_records import fake_records
from tests.results_folder import write_run

SEEDS = tuple(range(8))
METHODS = ("zero-shot", "finetune", "coop", "cgil", "joint")


def lines(records, layout: Layout, **options) -> list[str]:
    return tables.render(records, ["last", "forgetting"], layout=layout, **options).splitlines()


def rows(printed: list[str]) -> list[str]:
    """The lines of the only table's body."""
    start = next(k for k, line in enumerate(printed) if line.startswith("---")) + 1
    return printed[start : printed.index("", start)]


def first_words(printed: list[str]) -> list[str]:
    return [line.split("  ")[0].strip(" †‡") for line in rows(printed)]


def test_rows_come_in_the_order_in_which_they_were_named_unless_another_one_was_asked_for():
    chosen = Layout(methods=("coop", "zero-shot", "joint"))
    assert first_words(lines(fake_records(METHODS), chosen)) == ["coop", "zero-shot", "joint"]
    assert first_words(lines(fake_records(METHODS), chosen, sort="last")) == ["zero-shot", "joint", "coop"]


def test_the_best_is_the_best_of_the_rows_that_are_shown_and_zero_shot_stays_the_floor():
    printed = lines(fake_records(METHODS, noise=0), Layout(methods=("finetune", "coop")))
    assert first_words(printed) == ["finetune", "coop"] and "finetune †" in rows(printed)[0] and "**" in rows(printed)[1]
    assert "† ends below zero-shot (Last)" in printed


def test_a_label_means_one_kind_of_a_method_and_a_name_all_of_them():
    records = fake_records(("coop",)), fake_records(("coop",), overrides="epochs=3")
    both = tables.pd.concat(records)
    assert first_words(lines(both, Layout(methods=("coop (epochs=3)",)))) == ["coop (epochs=3)"]
    assert sorted(first_words(lines(both, Layout(methods=("coop",))))) == ["coop", "coop (epochs=3)"]


def test_names_that_no_row_could_have_are_refused_and_those_of_papers_taken():
    with pytest.raises(BenchError, match="unknown method of these results 'cgli'; did you mean cgil"):
        tables.build(fake_records(), layout=Layout(methods=("cgli",)))
    records = fake_records(("coop", "cgil"), protocol="cifar100-10x10")
    chosen = Layout(methods=("coop", "coda-prompt"))
    printed = tables.render(records, ["avg"], published=published.load(), layout=chosen)
    assert "coda-prompt, published" in printed and "cgil" not in printed and "proof" not in printed


def test_a_table_that_the_choice_leaves_empty_is_named():
    records = tables.pd.concat([fake_records(("coop", "cgil")), fake_records(("coop",), protocol="mini-objects60-6x10")])
    printed = tables.render(records, layout=Layout(methods=("cgil",)))
    assert "none of these methods was run on mini-objects60-6x10" in printed and printed.count("Percent") == 1


@pytest.mark.parametrize("digits", [0, 1, 3])
def test_digits(digits):
    printed = rows(lines(fake_records(METHODS), Layout(digits=digits)))
    numbers = re.findall(r"-?\d+(?:\.(\d+))?(?= |\*|$)", "  ".join(re.sub(r" +\d+$", "", line) for line in printed))
    assert numbers and all(len(found) == digits for found in numbers)
    data = csv.DictReader(io.StringIO(tables.render(fake_records(METHODS), format="csv", layout=Layout(digits=digits))))
    assert any(len(row["last"]) > 8 for row in data)  # numbers for programs stay whole


def test_a_caption_does_not_hide_under_which_conditions_and_on_what_images():
    printed = lines(fake_records(), Layout(caption="Main results."))
    assert printed[0] == "Main results" and any(line.startswith("mini60-6x10 (version 1, ") for line in printed[1:])
    limited = lines(fake_records(limits="train=5"), Layout(caption="Main results on {protocol}"))
    assert limited[0] == "Main results on mini60-6x10; LIMITED to train=5 images a class"
    synthetic = lines(fake_records(limits="data=synthetic"), Layout(caption="Ours"))
    assert "SYNTHETIC images" in synthetic[0]


def test_one_caption_for_several_tables_names_their_protocols():
    records = tables.pd.concat([fake_records(), fake_records(protocol="mini-objects60-6x10")])
    with pytest.raises(BenchError, match="there are 2 tables"):
        tables.render(records, layout=Layout(caption="All"))
    printed = tables.render(records, format="latex", layout=Layout(caption="On {protocol}", label="tab:all"))
    assert r"\caption{On mini60-6x10. " in printed and r"\caption{On mini-objects60-6x10. " in printed
    assert re.findall(r"\\label\{(.*?)\}", printed) == ["tab:all", "tab:all-2"]
    assert '<table id="tab:all">' in tables.render(fake_records(), format="html", layout=Layout(label="tab:all"))


def test_runs_are_said_below_where_their_column_is_left_out():
    printed = lines(fake_records(seeds=(0, 1, 2)), Layout(runs_column=False))
    assert not any("runs" in line for line in printed[2:5]) and printed[-1] == "runs: 3 a row"
    uneven = tables.pd.concat([fake_records(("coop",), seeds=(0,)), fake_records(("zero-shot", "finetune"))])
    assert lines(uneven, Layout(runs_column=False))[-1] == "runs: zero-shot 3, coop 1, finetune 3"


# -- significance -----------------------------------------------------------------------------------------------


def test_the_marks_say_what_bench_compare_says(tmp_path):
    """Two methods: one comparison a column, so no correction; the verdict must be that of bench compare."""
    random = np.random.default_rng(1)
    for seed in range(6):
        one, other = (np.clip(0.6 + random.normal(0, 0.05, (3, 3)) + shift, 0, 1).tolist() for shift in (0.0, 0.04))
        write_run(tmp_path, one, seed=seed, images=100, method="coop")
        write_run(tmp_path, other, seed=seed, images=100, method="cgil")
    (over_runs, _) = compare("coop", "cgil", [tmp_path], ["last", "avg", "bwt", "ci_transfer"])
    undecided = {row["metric"] for row in over_runs.data if not row["better"]}
    (group,) = comparable(tables_of(tmp_path))
    columns = [tables.metric_column(row["metric"]) for row in over_runs.data]
    found = significance.marks(group.methods, columns)
    assert {key for key, labels in found.ties.items() if labels} == undecided and 0 < len(undecided) < 4
    assert found.comparisons == {1}


def tables_of(folder):
    from bench.results import records

    return records.load([folder])


def test_more_methods_need_more_pairs_and_give_wider_intervals():
    needed = [significance.fewest_pairs(1 - 0.05 / comparisons) for comparisons in (1, 2, 5, 20)]
    assert needed == sorted(needed) and needed[0] == statistics.MIN_RUNS < needed[-1]
    records = fake_records(("cgil", "coop", "proof"), seeds=tuple(range(5)))
    text = tables.render(records, ["last"], layout=Layout(significance=True))
    assert "Bonferroni's correction for the 2 comparisons of a column" in text
    assert "not compared with the best, fewer than 6 pairs of runs: coop, proof" in text and "≈ not" in text


def test_methods_that_differ_by_noise_alone_are_marked_and_others_are_not():
    records = fake_records(("cgil", "proof", "slca"), seeds=SEEDS, noise=0.05)  # proof and slca have one level
    (table,) = tables.build(records, ["last"], layout=Layout(methods=("proof", "slca"), significance=True))
    assert [bool(row[1].sign) for row in table.rows].count(True) == 1
    (table,) = tables.build(records, ["last"], layout=Layout(significance=True))
    assert not any(row[1].sign for row in table.rows)


def test_what_no_seed_moves_and_what_is_not_ranked_gets_no_mark():
    records = fake_records(("zero-shot", "coop", "joint"), seeds=SEEDS, noise=0)
    text = tables.render(records, ["last"], layout=Layout(significance=True))
    assert "not compared, the difference to the best is equal in all pairs: zero-shot" in text
    assert "for the 1 comparison of a column" in text  # the bound is not ranked


@pytest.mark.parametrize("format", ["plain", "markdown", "latex", "html", "csv", "json"])
def test_marks_in_every_format(format):
    records = fake_records(("proof", "slca"), seeds=SEEDS, noise=0.05)
    text = tables.render(records, ["last"], format=format, layout=Layout(significance=True))
    sign = r"$\approx$" if format == "latex" else "≈"
    assert text.count(sign) == {"csv": 0, "json": 1}.get(format, 2)


# -- the command ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for method in ("coop", "cgil"):
        write_run(folder, [[0.9, 0.6], [0.85, 0.88]], method=method)
    return folder


def bench(*arguments: object):
    found = CliRunner().invoke(main, ["table", *map(str, arguments)])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found


@pytest.mark.parametrize(
    "options, why",
    [
        (["--digits", "9"], "--digits 9"),
        (["--digits", "-1"], "--digits -1"),
        (["--digits", "2", "--view", "cost"], "--view cost has none"),
        (["--significance", "--view", "matrix"], "--view matrix shows none"),
        (["--label", "tab main", "--format", "latex"], "--label"),
        (["--label", "tab:main"], "only --format latex and html"),
        (["--caption", ""], "--caption"),
        (["--methods", "coup"], "did you mean coop"),
        (["--methods", "coup", "--view", "cost"], "did you mean coop"),
        (["--methods", ","], "empty list"),
    ],
)
def test_bad_options_get_one_line(results, options, why):
    found = bench(results, *options)
    assert found.exit_code == 2 and not found.stdout and found.stderr.count("\n") == 1 and why in found.stderr


def test_the_options_reach_every_view(results):
    for view in ("summary", "tasks", "matrix", "cost"):
        found = bench(results, "--view", view, "--methods", "coop", "--no-runs-column", "--caption", "On {protocol}")
        assert found.exit_code == 0 and "cgil" not in found.stdout and "On toy-3x2" in found.stdout
