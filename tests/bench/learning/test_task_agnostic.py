"""Task-agnostic streams: which classes compete for which image, and what happens to classes of one name."""

from dataclasses import replace

import pytest
import torch

from bench.learning.evaluation import candidate_sets, evaluate, first_of_equals
from bench.learning.method import Method
from bench.streams.stream import Stream
from bench.system.randomness import Draws

EVERY = [0, 1, 2, 3]


class ByName(Method):
    """Zero-shot scores; `other_digits` adds what a device might leave in the last digits of later columns."""

    paper, trains = "none", "nothing"
    other_digits = 0.0

    def prepare(self):
        prompts = self.scenario.prompts_of(range(len(self.scenario.class_names)))
        self.register_buffer("vectors", self.backbone.classifier(prompts))

    def learn(self, task):
        pass

    def logits(self, batch, classes):
        scores = 100 * torch.nn.functional.normalize(batch, dim=-1) @ self.vectors[list(classes)].T
        return scores * (1 + self.other_digits * torch.arange(len(classes)))


def stream_of(make_stream, label_space="stream", names=None) -> Stream:
    made = make_stream("task-agnostic", sizes=(2, 2))
    scenario = replace(made.scenario, label_space=label_space, class_names=names or made.scenario.class_names)
    return Stream(scenario, tuple(replace(task, test=task.train) for task in made.tasks))


def cells_of(stream, small_backbone, after_task=0, kind=ByName):
    method = kind(kind.Settings(), small_backbone, stream.scenario, Draws("protocol", "by-name", 0))
    return list(evaluate(method, stream, after_task))


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("task", [0, 1])
def test_all_classes_of_the_stream_compete_from_the_start(make_stream, after, task):
    assert candidate_sets(stream_of(make_stream), after, task, zero_shot=True) == {"all": EVERY}


def test_among_the_seen_the_own_classes_of_a_task_to_come_compete_too(make_stream):
    stream = stream_of(make_stream, "seen")
    assert candidate_sets(stream, 0, 0, zero_shot=True) == {"seen+task": [0, 1]}
    assert candidate_sets(stream, 0, 1, zero_shot=True) == {"seen+task": EVERY}
    assert candidate_sets(stream, 1, 0, zero_shot=True) == {"seen+task": EVERY}


def test_what_cannot_score_unlearned_classes_is_asked_at_the_end_only(make_stream):
    stream = stream_of(make_stream)
    assert candidate_sets(stream, 0, 0, zero_shot=False) == {}
    assert candidate_sets(stream, 1, 0, zero_shot=False) == {"all": EVERY}


def test_scores_of_the_classes_decide(make_stream, small_backbone):
    stream = stream_of(make_stream)
    cells = cells_of(stream, small_backbone)
    assert [(cell.eval_task, cell.candidates, cell.tied) for cell in cells] == [(0, "all", 0), (1, "all", 0)]


# -- classes of one name ----------------------------------------------------------------------------------------


def test_namesakes_are_those_that_the_tokenizer_cannot_tell_apart(make_stream):
    scenario = stream_of(make_stream, names=("lotus", "rose", "Lotus ", "lotus flower")).scenario
    assert scenario.namesakes() == [0, 1, 0, 3]
    other_template = replace(scenario, templates=(*scenario.templates[:2], ("a drawing of a {}.",), scenario.templates[3]))
    assert other_template.namesakes() == [0, 1, 2, 3]


def test_the_first_of_equal_scores_wins_and_ties_are_counted():
    scores = torch.tensor([[1.0, 3.0, 3.0], [2.0, 3.0, 1.0], [5.0, 5.0, 5.0]])
    column, tied = first_of_equals(scores, torch.tensor([0, 1, 1]))
    assert (column.tolist(), tied) == ([1, 1, 0], 2)


def test_rounding_decides_nothing_between_namesakes_and_everything_between_others():
    scores = torch.tensor([[25.0, 25.00001, 3.0], [25.0, 25.1, 3.0]])
    assert first_of_equals(scores, torch.tensor([0, 0, 2]))[0].tolist() == [0, 1]
    assert first_of_equals(scores, torch.tensor([0, 1, 2]))[0].tolist() == [1, 1]


@pytest.mark.parametrize("digits", [0.0, 1e-7])
def test_a_namesake_in_an_earlier_task_takes_every_image(make_stream, small_backbone, digits):
    class OnADevice(ByName):
        other_digits = digits

    names = ("red", "green", "red", "yellow")
    first, second = cells_of(stream_of(make_stream, names=names), small_backbone, kind=OnADevice)
    assert not (second.prediction == 2).any()
    assert first.tied + second.tied == int((first.prediction == 0).sum() + (second.prediction == 0).sum()) > 0


def test_other_streams_count_no_ties(make_stream, small_backbone):
    made = make_stream("class-incremental", sizes=(2, 2))
    stream = Stream(made.scenario, tuple(replace(task, test=task.train) for task in made.tasks))
    assert {cell.tied for cell in cells_of(stream, small_backbone)} == {None}
