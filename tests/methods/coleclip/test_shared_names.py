"""Names that several data sets share: one entry of the vocabulary, its templates, what moves it, and how it is scored."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from bench.streams.stream import Scenario
from bench.system import registry
from bench.system.randomness import Draws
from methods.coleclip.coleclip import CoLeCLIP
from methods.coleclip.image_prompts import prompted_images
from methods.coleclip.vocabulary import Names, zero_shot_vocabulary
from protocols.mtil import DATASETS, ORDER_1, ORDER_2

FIRST, SECOND = ("a photo of a {}.", "a toy {}."), ("a map of {}.", "a map with {}.", "{} from above.")


def scenario() -> Scenario:
    """red, green | blue, red | green, red: the last task has only names of the others."""
    names = ("red", "green", "blue", "red", "green", "red")
    return Scenario("task-incremental", names, (FIRST, FIRST, SECOND, SECOND, FIRST, FIRST), (0, 0, 1, 1, 2, 2))


@pytest.fixture
def stream(make_stream):
    """Six kinds of images, of which classes 0, 3 and 5 are called red, and 1 and 4 green."""
    made = make_stream("task-incremental", sizes=(2, 2, 2), per_class=4)
    return replace(made, scenario=scenario())


def build(backbone, stream, **settings):
    settings = {"lr": 5e-3, "batch_size": 4, "epochs": 2, "rank": 2, "crop_scale": 1.0} | settings
    return CoLeCLIP(CoLeCLIP.Settings(**settings), backbone, stream.scenario, Draws("test", "coleclip", 0))


def taught(backbone, stream, tasks, **settings):
    method = build(backbone, stream, **settings)
    for task in stream.tasks[:tasks]:
        method.learn(task)
    return method


# -- entries and templates --------------------------------------------------------------------------------------


def test_a_name_is_one_entry_in_the_order_of_first_appearance():
    names = Names(scenario())
    assert names.names == ("red", "green", "blue")
    assert names.of_class == [0, 1, 2, 0, 1, 0] and names.of_task == [[0, 1], [2, 0], [1, 0]]
    assert names.owned(2, [1, 0, 2]).tolist() == [[True, True, False], [False, True, True]]
    assert names.owned(0, [1, 0, 2]).shape == (0, 3)


def test_a_shared_name_has_the_templates_of_all_its_data_sets_or_of_the_stated_one():
    names = Names(scenario())
    assert names.templates("red", ()) == FIRST + SECOND + FIRST
    assert names.templates("blue", ()) == SECOND
    assert names.templates("red", (("red", "a map of {}."),)) == SECOND
    assert names.templates("green", (("red", "a map of {}."),)) == FIRST + FIRST
    assert names.templates("green", (("green", "a map of {}."),)) == FIRST + FIRST  # no data set of it has this template


def test_a_zero_shot_entry_is_the_unit_mean_over_these_templates(small_backbone):
    found = zero_shot_vocabulary(small_backbone, Names(scenario()), (("green", "a toy {}."),))
    for entry, name, templates in zip(found, ("red", "green", "blue"), (FIRST + SECOND + FIRST, FIRST + FIRST, SECOND)):
        texts = [F.normalize(small_backbone.encode_text([template.format(name)])[0], dim=0) for template in templates]
        torch.testing.assert_close(entry, F.normalize(torch.stack(texts).mean(dim=0), dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", [ORDER_1, ORDER_2])
def test_mtil_has_24_shared_names_of_which_forest_and_river_are_eurosats(order):
    infos = {task: registry.load("dataset", DATASETS[task]).info for task in order}
    classes = [(name, infos[task].templates, index) for index, task in enumerate(order) for name in infos[task].class_names]
    class_names, templates, owners = zip(*classes)
    names = Names(Scenario("task-incremental", class_names, templates, owners))
    shared = {name for name in names.names if class_names.count(name) > 1}
    assert len(shared) == 24 and {"leopard", "sunflower", "forest", "river"} < shared
    one_list = CoLeCLIP.settings_for("mtil-order2").one_list
    for name in ("forest", "river"):
        assert names.templates(name, one_list) == tuple(infos["eurosat"].templates)
        assert len(names.templates(name, ())) > len(infos["eurosat"].templates)
    in_order = [task for task in order if task in ("caltech101", "cifar100", "flowers")]
    expected = tuple(template for task in in_order for template in infos[task].templates)
    assert names.templates("sunflower", one_list) == expected


# -- training ---------------------------------------------------------------------------------------------------


def test_a_returning_name_goes_on_from_what_was_learned_and_moves_on(small_backbone, stream):
    method = taught(small_backbone, stream, 1)
    red, green, blue = method.vocabulary.clone()
    start = build(small_backbone, stream).vocabulary
    assert not torch.equal(red, start[0]) and not torch.equal(green, start[1]) and torch.equal(blue, start[2])
    method.learn(stream.tasks[1])
    again = taught(small_backbone, stream, 1)
    again.vocabulary[0] = start[0]  # as if nothing had been learned of red
    again.learn(stream.tasks[1])
    assert not torch.equal(method.vocabulary[0], red) and torch.equal(method.vocabulary[1], green)
    assert not torch.allclose(method.vocabulary[0], again.vocabulary[0], atol=1e-4)


def test_training_uses_the_first_template_of_the_tasks_own_data_set(small_backbone, stream):
    from methods.coleclip.coleclip import TaskTraining

    method = build(small_backbone, stream)
    for task, prompts in ((0, ["a photo of a red.", "a photo of a green."]), (1, ["a map of blue.", "a map of red."])):
        training = TaskTraining(method, stream.tasks[task])
        assert torch.equal(training.tokens, small_backbone.tokenize(prompts))


def test_columns_of_earlier_tasks_are_their_other_names_in_order(small_backbone, stream):
    from methods.coleclip.coleclip import TaskTraining

    method = build(small_backbone, stream)
    second, third = (TaskTraining(method, stream.tasks[task]) for task in (1, 2))
    assert (second.entries, second.others) == ([2, 0], [1])
    assert second.owned.tolist() == [[False, True, True], [True, True, False]]
    assert (third.entries, third.others) == ([1, 0], [2])
    assert third.columns.tolist() == [0, 1]


def test_a_task_whose_names_have_all_been_there_can_be_learned(small_backbone, stream):
    method = taught(small_backbone, stream, 3, open_from=0.0)
    assert torch.isfinite(method.vocabulary).all() and torch.isfinite(method.prompts).all()


# -- scores -----------------------------------------------------------------------------------------------------


def outputs(method, pixels):
    """v of all tasks (b, tasks, d) and c_hat (b, d), one prompt after the other."""
    with torch.no_grad():
        found = prompted_images(method.backbone.clip.visual, pixels, method.prompts)
    c = found[:, -1]
    return torch.stack([F.normalize((found[:, j] + c) / 2, dim=-1) for j in range(3)], dim=1), F.normalize(c, dim=-1)


@pytest.mark.parametrize("learned", [0, 1, 2, 3])
def test_a_class_is_scored_by_the_best_learned_task_that_has_its_name(learned, small_backbone, stream):
    """Also one of a data set that is not learned; a name of which nothing is learned is scored by frozen CLIP."""
    method = taught(small_backbone, stream, learned)
    pixels = torch.cat([task.train.pixels() for task in stream.tasks])
    v, c_hat = outputs(method, pixels)
    has = {0: [0, 1, 2], 1: [0, 2], 2: [1]}  # entry -> tasks with a class of this name
    scores = method.logits(pixels, range(6))
    for c, entry in enumerate([0, 1, 2, 0, 1, 0]):
        e, tasks = method.vocabulary[entry], [j for j in has[entry] if j < learned]
        by_task = [100 * v[:, j] @ e for j in tasks] or [100 * c_hat @ e]
        scale = small_backbone.logit_scale / 100
        torch.testing.assert_close(scores[:, c], scale * torch.stack(by_task).amax(dim=0), rtol=1e-4, atol=1e-3)
    assert torch.equal(scores[:, 0], scores[:, 3]) and torch.equal(scores[:, 1], scores[:, 4])
    torch.testing.assert_close(method.logits(pixels[:3], [5, 2]), scores[:3, [5, 2]], rtol=1e-4, atol=1e-3)


def test_what_a_later_task_learns_of_a_name_changes_the_older_data_sets_scores(small_backbone, stream):
    method = taught(small_backbone, stream, 1)
    pixels = stream.tasks[0].train.pixels()
    before = method.logits(pixels, [0, 1])
    method.learn(stream.tasks[1])
    after = method.logits(pixels, [0, 1])
    assert not torch.allclose(after[:, 0], before[:, 0], atol=1e-3)  # red came back
    torch.testing.assert_close(after[:, 1], before[:, 1], rtol=1e-4, atol=1e-3)  # green did not
