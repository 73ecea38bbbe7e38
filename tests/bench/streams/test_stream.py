"""Tasks and splits: what a method may and may not see."""

import pytest
import torch

from bench.errors import RunFailure
from bench.streams.stream import Scenario, Stream


def test_test_images_are_sealed_while_a_method_learns(make_stream):
    task = make_stream().tasks[0].for_training()
    with pytest.raises(RunFailure, match="test data may not be used in training"):
        task.test.features()
    with pytest.raises(RunFailure):
        _ = task.test.labels


def test_pixels_of_chosen_rows_are_those_rows(make_stream):
    split = make_stream().tasks[0].train
    chosen = torch.tensor([3, 0])
    assert torch.equal(split.pixels(chosen), split.pixels()[chosen])


def test_the_mirrored_view_is_the_mirror_image(make_stream):
    split = make_stream().tasks[0].train
    assert torch.equal(split.pixels(view="mirrored"), split.pixels().flip(-1))


def test_joined_task_holds_every_training_image_in_task_order(make_stream):
    stream = make_stream(sizes=(2, 1, 2))
    joined = stream.joined()
    assert joined.classes == (0, 1, 2, 3, 4)
    assert joined.train.labels.tolist() == [label for task in stream.tasks for label in task.train.labels.tolist()]
    parts = torch.cat([task.train.pixels() for task in stream.tasks])
    assert torch.equal(joined.train.pixels(), parts)


def test_a_stream_whose_tasks_skip_a_class_is_refused(make_stream):
    stream = make_stream(sizes=(2, 2))
    with pytest.raises(ValueError, match="consecutive classes"):
        Stream(stream.scenario, stream.tasks[1:])


def test_prompts_fill_the_first_template():
    scenario = Scenario("class-incremental", ("cat", "dog"), (("a {}.", "the {}."),) * 2, (0, 1))
    assert scenario.prompts([1]) == ["a dog."]
    assert scenario.prompts([0], "my {}") == ["my cat"]
    assert scenario.n_tasks == 2


def test_all_prompts_of_classes_are_their_templates_or_the_one_that_is_given():
    scenario = Scenario("class-incremental", ("cat", "dog"), (("a {}.", "my {}."), ("the {}.",)), (0, 0))
    assert scenario.prompts_of([1, 0]) == [["the dog."], ["a cat.", "my cat."]]
    assert scenario.prompts_of(range(2), "one {}") == [["one cat"], ["one dog"]]
    assert scenario.prompts_of([]) == []
