"""Test batches as part of the evaluation: every image once, in the company that the method asks for."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from bench.learning.evaluation import evaluate
from bench.learning.method import Method
from bench.learning.test_batches import TestBatches
from bench.streams.stream import Stream
from bench.system.randomness import Draws

DRAWS = Draws("protocol", "method", 0)
LENGTHS = [5, 3, 4]


def batches(composition: str, size: int = 2, seen: int = 2, draws: Draws = DRAWS):
    return list(TestBatches(composition, size).compose(LENGTHS, seen, draws))


@pytest.mark.parametrize("composition", ["task", "mixed", "single"])
def test_every_image_comes_once(composition):
    found = Counter((task, row) for batch in batches(composition) for task, rows in batch for row in rows.tolist())
    assert found == Counter((task, row) for task, n in enumerate(LENGTHS) for row in range(n))


def test_task_batches_hold_one_task_and_are_as_large_as_can_be():
    found = batches("task")
    assert all(len(batch) == 1 for batch in found)
    sizes = [sum(len(rows) for _, rows in batch) for batch in found]
    assert sizes == [2, 2, 1, 2, 1, 2, 2]


def test_mixed_batches_mix_seen_tasks_but_never_with_future_ones():
    found = [{task for task, _ in batch} for batch in batches("mixed", size=4)]
    assert {0, 1} in found
    assert all(tasks <= {0, 1} or tasks == {2} for tasks in found)


def test_single_images():
    assert all(sum(len(rows) for _, rows in batch) == 1 for batch in batches("single", size=7))


def test_the_shuffle_depends_on_the_seed_alone():
    def order(seed):
        return [rows.tolist() for batch in batches("task", draws=Draws("protocol", "method", seed)) for _, rows in batch]

    assert order(0) == order(0) != order(1)


class Neighbours(Method):
    """Scores class 0 by the number of images in the batch."""

    paper, trains = "none", "nothing"
    composition = "task"

    def learn(self, task):
        pass

    @property
    def test_batches(self):
        return TestBatches(self.composition, 4)

    def logits(self, batch, classes):
        scores = torch.zeros(len(batch), len(classes))
        if 0 in classes:
            scores[:, list(classes).index(0)] = len(batch)
        return scores


@pytest.mark.parametrize("composition", ["task", "mixed", "single"])
def test_scores_come_from_the_batches_that_the_method_asked_for(composition, small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2, 2), per_class=3)  # 6 test images a task
    stream = Stream(stream.scenario, tuple(replace(task, test=task.train) for task in stream.tasks))
    method = Neighbours(None, small_backbone, stream.scenario, DRAWS)
    method.composition = composition
    cells = {(cell.eval_task, cell.candidates): cell for cell in evaluate(method, stream, after_task=1)}
    # the energy is log(exp(batch size) + other candidates): it tells each image's company
    sizes = {c: (cells[c, "seen"].energy).round().astype(int) for c in range(3)}
    expected = {
        "task": {0: {4: 4, 2: 2}, 1: {4: 4, 2: 2}, 2: {4: 4, 2: 2}},  # images by the size of their batch
        "mixed": {"seen": {4: 12}, 2: {4: 4, 2: 2}},
        "single": {0: {2: 6}, 1: {2: 6}, 2: {2: 6}},  # log(e + 3) rounds to 2
    }[composition]
    counts = {c: Counter(sizes[c].tolist()) for c in sizes}
    if composition == "mixed":
        assert counts[0] + counts[1] == expected["seen"] and counts[2] == expected[2]
    else:
        assert counts == expected


def test_methods_without_such_a_wish_are_scored_in_the_data_set_s_order(small_backbone, make_stream):
    class Indifferent(Neighbours):
        test_batches = None

        def logits(self, batch, classes):
            return batch[:, : len(classes)]

    stream = make_stream()
    stream = Stream(stream.scenario, tuple(replace(task, test=task.train) for task in stream.tasks))
    method = Indifferent(None, small_backbone, stream.scenario, DRAWS)
    cell = next(iter(evaluate(method, stream, after_task=1)))
    features = stream.tasks[0].train.features()
    assert cell.prediction.tolist() == features[:, :4].argmax(dim=-1).tolist()


def test_the_first_of_equal_logits_wins(small_backbone, make_stream):
    class Undecided(Neighbours):
        test_batches = None

        def logits(self, batch, classes):
            return torch.zeros(len(batch), len(classes))

    stream = make_stream()
    stream = Stream(stream.scenario, tuple(replace(task, test=task.train) for task in stream.tasks))
    cells = list(evaluate(Undecided(None, small_backbone, stream.scenario, DRAWS), stream, after_task=0))
    assert {cell.candidates for cell in cells} == {"seen", "all", "future", "task"}
    for cell in cells:
        first = {"seen": 0, "all": 0, "future": 2, "task": stream.tasks[cell.eval_task].classes[0]}[cell.candidates]
        assert set(cell.prediction.tolist()) == {first}


def test_a_method_whose_scores_depend_on_the_list_is_asked_for_every_set_of_candidates(small_backbone, make_stream):
    class Compares(Neighbours):
        """Prefers the last class of a list, so that a longer list with columns left out would show."""

        test_batches = None
        scores_depend_on_list = True

        def logits(self, batch, classes):
            asked.append((len(batch), tuple(classes)))
            return torch.arange(float(len(classes))).expand(len(batch), -1) / len(classes)

    asked: list = []
    stream = make_stream(sizes=(2, 2, 2), per_class=3)
    stream = Stream(stream.scenario, tuple(replace(task, test=task.train) for task in stream.tasks))
    cells = {
        (cell.eval_task, cell.candidates): cell
        for cell in evaluate(Compares(None, small_backbone, stream.scenario, DRAWS), stream, after_task=1)
    }
    assert set(cells) == {(0, "seen"), (0, "task"), (1, "seen"), (1, "task")} | {
        (2, s) for s in ("seen", "all", "future", "task")
    }
    for (task, candidates), cell in cells.items():
        classes = {"seen": range(4), "all": range(6), "future": range(4, 6), "task": stream.tasks[task].classes}[candidates]
        assert (6, tuple(classes)) in asked and set(cell.prediction.tolist()) == {classes[-1]}
        expected = (torch.arange(float(len(classes))) / len(classes)).softmax(dim=0).max()
        assert cell.confidence[0] == pytest.approx(float(expected))


def test_scores_that_depend_on_images_and_on_the_list_are_refused(small_backbone, make_stream):
    class Both(Neighbours):
        scores_depend_on_list = True

    stream = make_stream()
    with pytest.raises(TypeError, match="Both"):
        list(evaluate(Both(None, small_backbone, stream.scenario, DRAWS), stream, after_task=0))
