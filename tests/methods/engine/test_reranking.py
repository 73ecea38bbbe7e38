import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from bench.system.randomness import Draws
from methods.engine.descriptions import Descriptions
from methods.engine.reranking import best_classes, chosen_rows, description_table, reranked
from tests.methods.engine.test_descriptions import described


@pytest.fixture
def descriptions(small_backbone, make_stream, tmp_path):
    (tmp_path / "d.json").write_text(json.dumps(described()))
    return Descriptions(str(tmp_path / "d.json"), make_stream(sizes=(2, 2)).scenario, small_backbone)


def table_of(descriptions, task=0):
    return description_table(descriptions, 4, 3, Draws("test", "engine", 0), task)


def test_every_ordered_pair_gets_its_draws_once_per_task(descriptions):
    table = table_of(descriptions)
    assert table.shape == (3, 4, 4)
    assert (table.diagonal(dim1=1, dim2=2) == -1).all()  # a class is not compared with itself
    for a in range(4):
        for b in range(4):
            assert a == b or set(table[:, a, b].tolist()) <= set(descriptions.against(a, b))
    assert torch.equal(table, table_of(descriptions)) and not torch.equal(table, table_of(descriptions, task=1))


def test_the_best_are_looked_at_among_themselves(descriptions):
    """Against the formula, class by class."""
    table, n, k = table_of(descriptions), 4, 3
    generator = torch.Generator().manual_seed(0)
    features, cosines = torch.randn(5, 24, generator=generator), torch.randn(5, n, generator=generator)
    best = best_classes(cosines, k)
    found = reranked(features, best, chosen_rows(table, best), descriptions, n)
    for i in range(5):
        top = cosines[i].argsort(descending=True)[:k].tolist()
        for a in range(n):
            if a not in top:
                assert found[i, a] == 0
                continue
            total = 0.0
            for draw in range(3):
                texts = [descriptions.features(a)[table[draw, a, b]] for b in top if b != a]
                total += float(F.normalize(torch.stack(texts).mean(dim=0), dim=0) @ F.normalize(features[i], dim=0))
            assert float(found[i, a]) == pytest.approx(total / 3, abs=1e-5)


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_classes_than_are_looked_at(descriptions, n):
    cosines, features = torch.rand(2, n), torch.randn(2, 24)
    best = best_classes(cosines, 5)
    assert best.shape == (2, n)
    found = reranked(features, best, chosen_rows(table_of(descriptions), best), descriptions, n)
    assert found.shape == (2, n) and bool((found == 0).all()) == (n == 1)


def test_classes_of_one_name_are_not_compared(small_backbone, make_stream, tmp_path):
    scenario = dataclasses.replace(make_stream(sizes=(2, 2)).scenario, class_names=("red", "green", "red", "blue"))
    (tmp_path / "d.json").write_text(json.dumps(described(("red", "green", "blue"))))
    found = Descriptions(str(tmp_path / "d.json"), scenario, small_backbone)
    found.check_pairs()
    table = table_of(found)
    assert (table[:, 0, 2] == -1).all() and (table[:, 0, 1] >= 0).all()
    best = torch.tensor([[0, 2], [0, 1]])
    scores = reranked(torch.ones(2, 24), best, chosen_rows(table, best), found, 4)
    assert scores[0].tolist() == [0, 0, 0, 0] and scores[1, 0] != 0
