import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError, RunFailure
from bench.learning.evaluation import evaluate
from bench.streams.stream import Stream, Task
from bench.system.randomness import Draws
from methods.closed_form import rail
from methods.closed_form.rail import RAILDual, RAILPrimal

SMALL = {RAILPrimal: {"expansion": 40}, RAILDual: {}}
FORMS = pytest.mark.parametrize("form", [RAILPrimal, RAILDual])


def build(backbone, scenario, form=RAILPrimal, seed=0, **settings):
    return form(form.Settings(**{**SMALL[form], **settings}), backbone, scenario, Draws("test", "rail", seed))


def features_of(stream):
    return torch.cat([task.train.features() for task in stream.tasks])


def cosines(backbone, scenario, features, classes=None, template=None):
    """100 cos(f, t_c), class by class."""
    classes = range(len(scenario.class_names)) if classes is None else classes
    columns = []
    for c in classes:
        texts = [t.format(scenario.class_names[c]) for t in ([template] if template else scenario.templates[c])]
        unit = F.normalize(backbone.encode_text(texts), dim=-1)
        columns.append(F.normalize(features, dim=-1) @ F.normalize(unit.mean(dim=0), dim=0))
    return 100 * torch.stack(columns, dim=1)


def joint_regression(method, stream, up_to, features):
    """The joint solution over the first tasks, in numpy, and its outputs for some features."""
    trained = F.normalize(torch.cat([task.train.features() for task in stream.tasks[:up_to]]), dim=-1)
    labels = torch.cat([task.train.labels for task in stream.tasks[:up_to]]).numpy()
    y, x = np.eye(labels.max() + 1)[labels], F.normalize(features, dim=-1)
    if isinstance(method, RAILPrimal):
        h, h_x = (np.maximum((f @ method.expansion.T).numpy(), 0).astype(float) for f in (trained, x))
        return h_x @ np.linalg.solve(h.T @ h + 0.1 * np.eye(h.shape[1]), h.T @ y)

    def kernel(a, b):
        return np.exp(-0.1 * ((a[:, None] - b[None]) ** 2).sum(axis=-1))

    trained, x = trained.double().numpy(), x.double().numpy()
    return kernel(x, trained) @ np.linalg.solve(kernel(trained, trained) + 1e-3 * np.eye(len(trained)), y)


@FORMS
def test_outputs_are_those_of_joint_regression_after_every_task(small_backbone, make_stream, form):
    stream = make_stream(sizes=(2, 1, 3))
    method, x = build(small_backbone, stream.scenario, form), features_of(stream)
    for done, task in enumerate(stream.tasks, start=1):
        method.learn(task)
        expected = torch.from_numpy(joint_regression(method, stream, done, x))
        torch.testing.assert_close(method.regression(F.normalize(x, dim=-1)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", ["gram", "woodbury"])
def test_the_solver_and_the_rows_of_a_step_have_no_influence(small_backbone, make_stream, solver):
    stream = make_stream()
    x = features_of(stream)
    reference, other = build(small_backbone, stream.scenario, rows=3), build(small_backbone, stream.scenario, solver=solver)
    for task in stream.tasks:
        for method in (reference, other):
            method.learn(task)
    torch.testing.assert_close(other.logits(x, [0, 1, 2, 3]), reference.logits(x, [0, 1, 2, 3]), rtol=1e-6, atol=1e-6)


@FORMS
@pytest.mark.parametrize("template", [None, "a bad photo of a {}."])
def test_with_all_names_known_scores_are_fused_where_zero_shot_finds_a_seen_class(small_backbone, make_stream, form, template):
    stream = make_stream(sizes=(2, 2))
    method = build(small_backbone, stream.scenario, form, label_space="all", template=template)
    x = features_of(stream)
    p = cosines(small_backbone, stream.scenario, x, template=template).softmax(dim=-1)
    torch.testing.assert_close(method.logits(x, [0, 1, 2, 3]), p, rtol=1e-4, atol=1e-5)
    method.learn(stream.tasks[0])
    a = method.regression(F.normalize(x, dim=-1)).float()
    expected = p.clone()
    for row in range(len(x)):
        if int(p[row].argmax()) in (0, 1):
            expected[row] *= 0.2
            expected[row, :2] += 0.8 * a[row]
    assert 0 < sum(int(row.argmax()) in (0, 1) for row in p) < len(p)  # both cases occur
    torch.testing.assert_close(method.logits(x, [0, 1, 2, 3]), expected, rtol=1e-4, atol=1e-5)


@FORMS
def test_seen_classes_are_scored_among_themselves_and_unseen_ones_by_the_rule_of_x_tail(small_backbone, make_stream, form):
    stream = make_stream(sizes=(2, 2, 2))
    method, x = build(small_backbone, stream.scenario, form), features_of(stream)
    method.learn(stream.tasks[0])
    method.learn(stream.tasks[1])
    zero_shot = cosines(small_backbone, stream.scenario, x)
    a = method.regression(F.normalize(x, dim=-1)).float()
    seen = 0.2 * zero_shot[:, :4].softmax(dim=-1) + 0.8 * a
    torch.testing.assert_close(method.logits(x, [0, 1, 2, 3]), seen, rtol=1e-4, atol=1e-5)
    assert torch.equal(method.logits(x, [4, 5]).argmax(dim=-1), zero_shot[:, 4:].argmax(dim=-1))
    looks_unseen = zero_shot.argmax(dim=-1) >= 4
    assert 0 < int(looks_unseen.sum()) < len(x)
    everything = method.logits(x, range(6))
    assert torch.equal(everything.argmax(dim=-1)[looks_unseen], zero_shot.argmax(dim=-1)[looks_unseen])
    p = zero_shot.softmax(dim=-1)
    torch.testing.assert_close(everything[~looks_unseen][:, 4:], 0.2 * p[~looks_unseen][:, 4:], rtol=1e-4, atol=1e-6)


@FORMS
def test_task_incremental_fuses_learned_tasks_within_their_own_classes(small_backbone, make_stream, form):
    stream = make_stream("task-incremental", sizes=(2, 3))
    method, x = build(small_backbone, stream.scenario, form), features_of(stream)
    z = cosines(small_backbone, stream.scenario, x)
    p = torch.cat([z[:, :2].softmax(dim=-1), z[:, 2:].softmax(dim=-1)], dim=-1)
    torch.testing.assert_close(method.logits(x, range(5)), p, rtol=1e-4, atol=1e-5)
    method.learn(stream.tasks[0])
    a = method.regression(F.normalize(x, dim=-1)).float()
    torch.testing.assert_close(method.logits(x, [0, 1]), 0.2 * p[:, :2] + 0.8 * a, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.logits(x, [4, 2]), p[:, [4, 2]], rtol=1e-4, atol=1e-5)


@FORMS
def test_a_weight_of_zero_is_zero_shot_clip(small_backbone, make_stream, form):
    stream = make_stream()
    method, x = build(small_backbone, stream.scenario, form, fusion_weight=0.0), features_of(stream)
    for task in stream.tasks:
        method.learn(task)
    expected = cosines(small_backbone, stream.scenario, x).argmax(dim=-1)
    assert torch.equal(method.logits(x, range(4)).argmax(dim=-1), expected)


@pytest.mark.parametrize("settings", [{}, {"solver": "gram"}, {"solver": "woodbury"}, None])
def test_resumed_after_any_task_it_ends_with_the_same_numbers(small_backbone, make_stream, settings):
    form, settings = (RAILDual, {}) if settings is None else (RAILPrimal, settings)
    stream = make_stream(sizes=(2, 1, 2))
    whole, states = build(small_backbone, stream.scenario, form, **settings), []
    for task in stream.tasks:
        whole.learn(task)
        states.append({name: value.clone() for name, value in whole.state_dict().items()})
    x = features_of(stream)
    for done, state in enumerate(states, start=1):
        resumed = build(small_backbone, stream.scenario, form, **settings)
        resumed.load_state_dict(state)
        for task in stream.tasks[done:]:
            resumed.learn(task)
        assert torch.equal(resumed.logits(x, range(5)), whole.logits(x, range(5)))


def test_only_forms_that_keep_features_count_stored_data(small_backbone, make_stream):
    stream = make_stream(per_class=5)
    counted = {}
    for name, method in (
        ("recursive", build(small_backbone, stream.scenario)),
        ("gram", build(small_backbone, stream.scenario, solver="gram")),
        ("woodbury", build(small_backbone, stream.scenario, solver="woodbury")),
        ("dual", build(small_backbone, stream.scenario, RAILDual)),
    ):
        for task in stream.tasks:
            method.learn(task)
        counted[name] = method.exemplar_bytes()
    assert counted == {"recursive": 0, "gram": 0, "woodbury": 20 * 24 * 4, "dual": 20 * 24 * 4}


def test_another_seed_draws_another_expansion_within_its_bounds(small_backbone, make_stream):
    scenario = make_stream().scenario
    first, again, other = (build(small_backbone, scenario, seed=seed).expansion for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (40, 24) and 0.9 < float(first.abs().max()) * 24**0.5 <= 1


@FORMS
def test_a_class_and_a_task_of_one_image_are_learned(small_backbone, make_stream, form):
    stream = make_stream(sizes=(1, 1), per_class=1)
    method = build(small_backbone, stream.scenario, form)
    for task in stream.tasks:
        method.learn(task)
    assert torch.equal(method.logits(features_of(stream), [0, 1]).argmax(dim=-1), torch.tensor([0, 1]))


@FORMS
def test_evaluation_after_the_first_task_gets_finite_scores_for_all_candidates(small_backbone, make_stream, form):
    stream = make_stream()
    stream = Stream(stream.scenario, tuple(Task(t.index, t.name, t.classes, t.train, t.train) for t in stream.tasks))
    method = build(small_backbone, stream.scenario, form)
    method.learn(stream.tasks[0].for_training())
    cells = list(evaluate(method, stream, after_task=0))
    assert {(cell.eval_task, cell.candidates) for cell in cells} >= {(0, "seen"), (1, "all"), (1, "future")}


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        (RAILPrimal, {"fusion_weight": 1.5}), (RAILPrimal, {"ridge": 0.0}), (RAILPrimal, {"expansion": 0}),
        (RAILPrimal, {"rows": 0}), (RAILDual, {"template": "a photo"}), (RAILDual, {"gamma": 0.0}), (RAILDual, {"ridge": -1.0}),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(form, wrong):
    with pytest.raises(BenchError):
        form.Settings(**wrong)


@pytest.mark.parametrize("form, settings", [(RAILDual, {}), (RAILPrimal, {"solver": "woodbury"})])
def test_more_pairs_than_memory_end_the_run_in_one_line(small_backbone, make_stream, form, settings, monkeypatch):
    stream = make_stream()
    method = build(small_backbone, stream.scenario, form, **settings)
    method.learn(stream.tasks[0])
    monkeypatch.setattr(rail, "available_memory", lambda: 1000)
    with pytest.raises(RunFailure, match=r"all pairs of \d+ training images are held.*--limit-train") as error:
        method.learn(stream.tasks[1])
    assert "\n" not in str(error.value)


def test_authors_settings():
    primal, dual, x_tail = RAILPrimal.Settings(), RAILDual.Settings(), RAILPrimal.settings_for("xtail-order1")
    assert (primal.expansion, primal.ridge, primal.fusion_weight, primal.temperature) == (15000, 0.1, 0.8, 100.0)
    assert (dual.gamma, dual.ridge, dual.fusion_weight) == (0.1, 1e-3, 0.8)
    assert (x_tail.label_space, x_tail.template, x_tail.expansion) == ("all", "a photo of a {}.", 15000)
