"""Published numbers: complete, honest about their sources, and reproduced by our metrics."""

import doctest
import re
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from bench.results import accuracy, published
from bench.results.foreign.accuracy_files import read_csv
from bench.results.metrics import METRICS

READ = re.compile(r"(read-|exact: |certain: )")
MATRICES = files("bench.shipped") / "published" / "mtil_matrices.csv"


def test_docstring_examples():
    result = doctest.testmod(published)
    assert result.attempted > 0 and result.failed == 0


def test_every_row_was_read_in_a_named_source():
    table = published.load()
    assert list(table.columns) == published.COLUMNS and len(table) > 700
    assert table["certainty"].map(lambda certainty: bool(READ.match(certainty))).all()
    assert not table["certainty"].str.contains("recalled|derived").any()
    assert (table[["method", "protocol", "backbone", "metric", "reported_in", "table"]].map(len) > 0).all().all()
    assert not table.duplicated(["method", "protocol", "backbone", "metric", "reported_in", "table"]).any()


def test_accuracies_are_percent():
    table = published.load()
    known = table["metric"].str.split("/").str[0].isin([*METRICS, "Accuracy", "Transfer", "Avg", "Last"])
    assert table["value"][known].between(0, 100).all()
    assert set(table["metric"][~known]) == {"params_millions", "last_gain_points", "avg_gain_points"}


def test_loading_gives_everybody_an_own_copy():
    own = published.load()
    own["value"] = 0.0
    assert (published.load()["value"] > 0).all()


def mtil_matrices() -> dict[tuple[str, str], pd.DataFrame]:
    """The full accuracy matrices of ZSCL's runs: (method, order) -> fractions, rows and columns in learning order."""
    orders, found = published.mtil_orders(), {}
    for (method, order), rows in pd.read_csv(MATRICES).groupby(["method", "order"], sort=False):
        matrix = rows.pivot(index="after_task", columns="eval_dataset", values="accuracy") / 100
        found[method, order] = matrix.loc[orders[order], orders[order]]
    return found


def test_seven_matrices_of_eleven_tasks_whose_accuracies_are_whole_numbers_of_images():
    matrices = mtil_matrices()
    assert len(matrices) == 7
    test_images = {"Aircraft": 3333, "MNIST": 10000, "SUN397": 21751, "DTD": 1880}
    for matrix in matrices.values():
        assert matrix.shape == (11, 11) and not matrix.isna().any().any()
        assert list(matrix.index) == list(matrix.columns)
        for name, n in test_images.items():
            np.testing.assert_allclose(matrix[name] * n, (matrix[name] * n).round(), atol=1e-6)


@pytest.mark.parametrize("key", mtil_matrices(), ids="-".join)
def test_mtil_metrics_of_the_matrices_are_the_published_ones(key):
    method, order = key
    matrix = mtil_matrices()[key]
    rows = published.load()
    rows = rows[(rows["method"] == method) & (rows["protocol"] == f"mtil-order{len(order)}")]
    rows = rows[rows["reported_in"].str.contains("ZSCL")]
    expected = dict(zip(rows["metric"], rows["value"]))
    overall = {
        "mtil_transfer": accuracy.column_mean_transfer(matrix.to_numpy()),
        "mtil_avg": accuracy.all_cells_avg(matrix.to_numpy()),
        "mtil_last": accuracy.last(matrix.to_numpy()),
    }
    per_task = {
        "mtil_transfer": accuracy.transfer_per_task(matrix.to_numpy())[1:],
        "mtil_avg": accuracy.avg_per_task(matrix.to_numpy()),
        "mtil_last": matrix.to_numpy()[-1],
    }
    for metric, value in overall.items():
        assert round(100 * value, 1) == expected[metric]
        names = matrix.columns[1:] if metric == "mtil_transfer" else matrix.columns
        for name, own in zip(names, per_task[metric]):
            assert abs(100 * own - expected[f"{metric}/{name}"]) <= 0.05 + 1e-9, (metric, name)


def test_the_packaged_matrices_are_read_as_anybodys_file_in_any_row_order():
    header, *lines = MATRICES.read_text().splitlines()
    shuffled = np.random.default_rng(0).permutation(lines)
    found = read_csv("\n".join([header, *shuffled]), "matrices.csv")
    expected = {f"{method}, order {order}": matrix for (method, order), matrix in mtil_matrices().items()}
    assert {one.label for one in found} == set(expected)
    for one in found:
        assert one.tasks == list(expected[one.label].columns)
        np.testing.assert_allclose(one.matrix, expected[one.label])


def test_sources_of_one_method_stay_apart_and_other_backbones_are_flagged():
    conditions = {"protocol": "cifar100-10x10", "backbone": "ViT-B-16", "pretrained": "openai"}
    sources = published.beside(published.load(), conditions)
    assert len({source.where for source in sources["zero-shot"]}) == len(sources["zero-shot"]) > 1
    assert {source.flag for source in sources["zero-shot"]} == {"", "weights not stated"}
    assert all(source.flag == "other backbone" and not source.comparable for source in sources["l2p"])
    other = published.beside(published.load(), {**conditions, "pretrained": "laion400m_e32"})
    assert {source.flag for source in other["clap"]} == {"other weights"}
    assert published.beside(published.load(), {**conditions, "protocol": "mini60-6x10"}) == {}
