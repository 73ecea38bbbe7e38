import json

import pytest
import torch

from bench.errors import BenchError
from methods.clg_cbm.concepts import Concepts
from methods.clg_cbm.search import ConceptSpread, nearest_free
from methods.clg_cbm.settings import MINI_CONCEPTS
from protocols.datasets.mini_world import downstream

NAMES = ("red", "green", "blue", "yellow")


@pytest.fixture
def opened(small_backbone, make_stream, tmp_path):
    """opened(content, kept per class): the concepts of a stream of four classes, from a file with this content."""
    stream = make_stream(sizes=(2, 2))

    def make(content, kept=2) -> Concepts:
        path = tmp_path / "concepts.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return Concepts(str(path), "a thing with ", stream.scenario, small_backbone, kept)

    return make


def some_concepts(per_class=3) -> dict:
    return {name: [f"{name} part {k}" for k in range(per_class)] for name in NAMES}


def test_features_are_of_the_tasks_classes_one_after_the_other(opened, small_backbone, make_stream):
    features = opened(some_concepts()).features(make_stream(sizes=(2, 2)).tasks[1])
    texts = [f"a thing with {name} part {k}" for name in ("blue", "yellow") for k in range(3)]
    expected = torch.nn.functional.normalize(small_backbone.encode_text(texts), dim=-1)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"{", "not JSON"),
        ([1], "one JSON object"),
        (b"\xff\xfe\xfa", "not UTF-8"),
        (b'{"red": ["a"], "red": ["b"]}', "'red' stands there twice"),
        ({name: ["a", "b"] for name in NAMES[:3]}, "no concepts of the class 'yellow'"),
        (some_concepts() | {"green": []}, "no concepts of the class 'green'"),
        (some_concepts() | {"green": "leaves"}, "'green': a list of sentences"),
        (some_concepts() | {"green": ["leaves", ""]}, "'green': a list of sentences"),
        (some_concepts(per_class=1), "task 1 has 2 concepts, and 4 are to be kept"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(opened, content, said):
    with pytest.raises(BenchError, match=said) as error:
        opened(content)
    assert "\n" not in str(error.value) and "concepts.json" in str(error.value)


def test_a_task_may_have_fewer_for_one_class_than_it_keeps_on_average(opened):
    assert opened(some_concepts() | {"red": ["a"], "green": ["a", "b", "c"]}).of_name["red"] == ("a",)


def test_the_mini_world_has_concepts_of_all_its_classes():
    with open(MINI_CONCEPTS) as file:
        found = json.load(file)
    assert {name for facts in downstream.DATASETS.values() for name in facts.class_names} == set(found)
    assert all(len(texts) >= 3 for texts in found.values())


# -- the search -------------------------------------------------------------------------------------------------


def test_rows_take_the_nearest_concept_that_is_free():
    concepts = torch.eye(4)
    rows = torch.tensor([[0, 5.0, 1, 0], [0, 2.0, 0, 1], [0, 1.0, 0.9, 0.8], [1.0, 0, 0, 0]])
    assert nearest_free(rows, concepts, 3).tolist() == [1, 3, 2]
    assert nearest_free(rows, concepts, 4).tolist() == [1, 3, 2, 0]


def test_distances_are_those_of_the_covariance_with_its_ridge():
    points = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).double()
    spread = ConceptSpread(points, 0.1)
    centred = points - points.mean(dim=0)
    inverse = torch.linalg.inv(centred.T @ centred / 6 + 0.1 * torch.eye(3))
    expected = [float(row @ inverse @ row) for row in centred]
    assert spread.distances(points).tolist() == pytest.approx(expected)
    assert spread.mean_distance == pytest.approx(sum(expected) / 7)


def test_the_loss_takes_the_length_of_a_row_for_a_constant():
    points = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).double()
    spread, rows = ConceptSpread(points, 0.1), torch.nn.Parameter(torch.randn(5, 3).double() * 3)
    loss = spread.loss(rows, power=2.0)
    units = torch.nn.functional.normalize(rows.detach(), dim=-1)
    own, mean = float(spread.distances(units).mean()), spread.mean_distance
    sign = 1 if own > mean else -1
    assert float(loss.detach()) == pytest.approx(abs(own - mean) / mean**2)
    loss.backward()
    gradient = sign * 2 * (units - spread.mean) @ spread.inverse / (5 * spread.mean_distance**2)
    torch.testing.assert_close(rows.grad, gradient / rows.detach().norm(dim=-1, keepdim=True))


def test_without_a_ridge_few_concepts_are_refused():
    with pytest.raises(BenchError, match="covariance_ridge"):
        ConceptSpread(torch.eye(5)[:2], 0.0)
