"""ZSCL and LwF: the distillation losses against a literal transcription, teachers, reference data."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from bench.images.dataset import Folders, ImageSource
from bench.streams import reference as references
from bench.streams.reference import Reference
from bench.streams.stream import Split, Stream
from bench.system import registry
from bench.system.randomness import Draws
from methods.fine_tuning.distilled_finetune import distillation
from methods.fine_tuning.finetune import FineTune
from methods.fine_tuning.icarl import ICaRL
from methods.fine_tuning.lwf import END, START, LwF, LwFVR
from methods.fine_tuning.weight_space import weights_of
from methods.fine_tuning.zscl import ZSCL, ZSCLMinus, ZSCLStar

QUICK = {"lr": 1e-3, "iterations": 3, "warmup": 1, "batch_size": 4}
SENTENCES = ("a red thing", "two small things", "a photo of the sea")


def build(method_class, backbone, stream, **settings):
    settings = method_class.Settings(**{**QUICK, **settings})
    return method_class(settings, backbone, stream.scenario, Draws("test", "zscl", 0))


@pytest.fixture
def reference(make_stream) -> Reference:
    """Noise images that belong to no task, and sentences."""
    images = np.random.default_rng(5).integers(0, 255, (7, 32, 32, 3), dtype=np.uint8)
    source = ImageSource.from_arrays(images, np.zeros(7, np.int64))
    split = Split([(source, np.arange(7))], torch.zeros(7, dtype=torch.long), make_stream().tasks[0].train.store)
    return Reference(split, SENTENCES)


def test_distillation_row_by_row():
    teacher, student = torch.randn(3, 4), torch.randn(3, 4)
    slow = 0.0
    for p, q in zip(teacher.tolist(), student.tolist()):
        weights = [np.exp(v / 2) for v in p]
        total, others = sum(weights), sum(np.exp(v / 2) for v in q)
        slow -= sum(w / total * np.log(np.exp(v / 2) / others) for w, v in zip(weights, q))
    assert distillation(teacher, student, 2.0).item() == pytest.approx(4 * slow / 3, rel=1e-5)


def test_losses_of_a_reference_batch(small_backbone, make_stream, reference):
    stream = make_stream()
    method = build(ZSCL, small_backbone, stream)
    method.use_reference(reference)
    captured = {}

    def capture(rows, pixels):
        captured["losses"] = losses = ZSCL.distillation_losses(method, rows, pixels)
        captured["rows"], captured["clip"] = rows, weights_of(method.clip)
        captured["student"] = method.clip.encode_image(reference.images.pixels(rows)).detach()
        return losses

    method.distillation_losses = capture
    method.learn(stream.tasks[0])
    sentences = F.normalize(small_backbone.encode_text(SENTENCES), dim=-1)
    pixels = reference.images.pixels(captured["rows"])
    teacher = F.normalize(small_backbone.encode_images(pixels), dim=-1)
    student = F.normalize(captured["student"], dim=-1)
    scale = small_backbone.logit_scale
    teacher_logits, student_logits = scale * teacher @ sentences.T, scale * student @ sentences.T
    torch.testing.assert_close(captured["losses"][0].detach(), distillation(teacher_logits, student_logits, 2.0))
    torch.testing.assert_close(captured["losses"][1].detach(), distillation(teacher_logits.T, student_logits.T, 2.0))


def test_with_every_part_off_it_is_fine_tuning(small_backbone, make_stream):
    stream = make_stream(sizes=(2,))
    off = {"image_weight": 0.0, "text_weight": 0.0, "l2_weight": 0.0, "average_every": 0}
    method, plain = build(ZSCL, small_backbone, stream, **off), build(FineTune, small_backbone, stream)
    assert method.reference_names is None
    for one in (method, plain):
        one.learn(stream.tasks[0])
    torch.testing.assert_close(method.clip.visual.proj, plain.clip.visual.proj)


@pytest.mark.parametrize("part", ["image_weight", "text_weight", "l2_weight", "average_every"])
def test_every_part_is_a_switch(part, small_backbone, make_stream, reference):
    stream = make_stream(sizes=(2,))
    ends = []
    for changed in ({}, {part: 0}):
        method = build(ZSCL, small_backbone, stream, **{"average_every": 2, **changed})
        method.use_reference(reference)
        method.learn(stream.tasks[0])
        ends.append(method.clip.visual.proj.detach())
    assert not torch.allclose(ends[0], ends[1], rtol=0, atol=1e-7)


def test_class_incremental_weight_decay_is_that_of_fine_tuning():
    decays = {name: ZSCL.settings_for(f"{name}-10x10").weight_decay for name in ("cifar100", "tinyimagenet", "imagenet100")}
    assert decays == {"cifar100": 0.0, "tinyimagenet": 0.0, "imagenet100": 0.1}


def test_presets_differ_as_the_authors_scripts_do():
    assert (ZSCL.Settings().l2_weight, ZSCLStar.Settings().l2_weight, ZSCLMinus.Settings().l2_weight) == (1.0, 0.0, 0.0)
    assert (ZSCLStar.Settings().average_every, ZSCLMinus.Settings().average_every) == (100, 0)
    assert ZSCLMinus.Settings().reference_sentences == "imagenet-classes"


@pytest.mark.parametrize(("teacher", "share"), [("initial", 0.0), ("previous", 1.0), ("merged", 0.8)])
def test_teachers(teacher, share, small_backbone, make_stream, reference):
    stream = make_stream()
    method = build(ZSCL, small_backbone, stream, teacher=teacher)
    method.use_reference(reference)
    method.learn(stream.tasks[0])
    start, initial = weights_of(method.clip), weights_of(small_backbone.clip)
    found = weights_of(method.choose_teacher(stream.tasks[1]))
    for name in start:
        torch.testing.assert_close(found[name], share * start[name] + (1 - share) * initial[name])


def test_lwf_s_first_update_is_that_of_fine_tuning_and_later_ones_are_not(small_backbone, make_stream):
    stream = make_stream(sizes=(2,))
    ends = {}
    for iterations in (0, 3):
        for method_class in (FineTune, LwF):
            method = build(method_class, small_backbone, stream, iterations=iterations, warmup=0 if iterations else 1)
            method.learn(stream.tasks[0])
            ends[iterations, method_class] = method.clip.visual.proj.detach()
    # Adam divides by the gradient's size, so rounding noise in entries without gradient moves them: compare loosely
    torch.testing.assert_close(ends[0, LwF], ends[0, FineTune], rtol=1e-2, atol=1e-4)
    assert not torch.allclose(ends[3, LwF], ends[3, FineTune], rtol=1e-2, atol=1e-4)


def test_the_released_teacher_makes_lwf_fine_tuning(small_backbone, make_stream):
    stream = make_stream(sizes=(2,))
    method, plain = build(LwF, small_backbone, stream, teacher_is_student=True), build(FineTune, small_backbone, stream)
    for one in (method, plain):
        one.learn(stream.tasks[0])
    torch.testing.assert_close(method.clip.visual.proj, plain.clip.visual.proj, rtol=1e-2, atol=1e-4)


def test_icarl_with_the_released_teacher_distils_nothing(small_backbone, make_stream):
    stream = make_stream(sizes=(2, 2))
    defect, copy_of_start = (
        build(ICaRL, small_backbone, stream, teacher="previous", memory_size=4, teacher_is_student=on) for on in (True, False)
    )
    ends = []
    for method in (defect, copy_of_start):
        for task in stream.tasks:
            method.grow(task)
            method.learn(task)
        ends.append(method.clip.visual.proj.detach())
    plain = build(FineTune, small_backbone, stream)
    for task in stream.tasks:
        plain.learn(task)
    # Adam divides by the gradient's size, so rounding noise in entries without gradient moves them: compare loosely
    torch.testing.assert_close(ends[0], plain.clip.visual.proj.detach(), rtol=1e-2, atol=1e-4)
    assert not torch.allclose(ends[1], plain.clip.visual.proj, rtol=1e-2, atol=1e-4)


def test_a_batch_in_parts_sees_the_same_reference_batch_once(small_backbone, make_stream, reference):
    stream = make_stream(sizes=(2,))
    ends = {}
    for accumulate in (1, 2):
        method = build(ZSCL, small_backbone, stream, accumulate=accumulate, average_every=0)
        method.use_reference(reference)
        seen, losses = [], method.distillation_losses
        method.distillation_losses = lambda rows, pixels: seen.append(rows.tolist()) or losses(rows, pixels)
        method.learn(stream.tasks[0])
        ends[accumulate] = method.clip.visual.proj.detach(), seen
    assert ends[1][1] == ends[2][1] and len(ends[1][1]) == QUICK["iterations"] + 1
    torch.testing.assert_close(ends[2][0], ends[1][0], rtol=1e-2, atol=1e-4)


def test_the_initial_teacher_encodes_its_sentences_once(small_backbone, make_stream, reference):
    stream = make_stream()
    method = build(ZSCL, small_backbone, stream)
    method.use_reference(reference)
    encoded, encode = [], method.encode_sentences
    method.encode_sentences = lambda teacher, tokens: encoded.append(len(tokens)) or encode(teacher, tokens)
    for task in stream.tasks:
        method.learn(task)
    assert encoded == [len(SENTENCES)]
    other = build(ZSCL, small_backbone, stream, teacher="previous")
    other.use_reference(reference)
    encode_by_previous = other.encode_sentences
    other.encode_sentences = lambda teacher, tokens: encoded.append(len(tokens)) or encode_by_previous(teacher, tokens)
    for task in stream.tasks:
        other.learn(task)
    assert len(encoded) == 1 + len(stream.tasks)  # this teacher is another one in every task


def test_a_frozen_copy_is_asked_once_about_an_image(small_backbone, make_stream, monkeypatch):
    stream = make_stream()
    method = build(LwF, small_backbone, stream, iterations=7)
    asked, copied = [], method.frozen_copy

    def counting_copy():
        teacher = copied()
        encode = teacher.encode_image
        teacher.encode_image = lambda pixels: asked.append(len(pixels)) or encode(pixels)
        return teacher

    monkeypatch.setattr(method, "frozen_copy", counting_copy)
    for place, task in enumerate(stream.tasks, start=1):
        method.learn(task)
        images = sum(len(learned.train) for learned in stream.tasks[:place])
        assert sum(asked) == images < place * 8 * QUICK["batch_size"]


def test_random_sentences_are_drawn_once_per_task(small_backbone, make_stream):
    stream = make_stream()
    method = build(LwFVR, small_backbone, stream, sentences=6, sentence_tokens=4)
    tokens = method.sentence_tokens(stream.tasks[0])
    assert tokens.shape == (6, 77)
    assert tokens[:, 0].tolist() == [START] * 6 and tokens[:, 5].tolist() == [END] * 6 and not tokens[:, 6:].any()
    assert torch.equal(tokens, method.sentence_tokens(stream.tasks[0]))
    assert not torch.equal(tokens, method.sentence_tokens(stream.tasks[1]))


def test_reference_images_from_the_stream_are_refused(make_stream):
    stream = make_stream()
    stream = Stream(stream.scenario, tuple(_with_test(task) for task in stream.tasks))
    split = stream.tasks[1].train
    leaking = Reference(Split([(split.pieces[0][0], split.pieces[0][1][-1:])], split.labels[-1:], split.store), ())
    with pytest.raises(BenchError, match="1 training images of task 'task 1'"):
        references.refuse_leaks(leaking, stream, "somewhere")


def test_a_copy_of_a_test_image_is_recognised_in_another_source(make_stream, reference):
    stream = make_stream()
    stream = Stream(stream.scenario, tuple(_with_test(task) for task in stream.tasks))
    references.refuse_leaks(reference, stream, "noise")  # nothing in common
    source, rows = stream.tasks[0].train.pieces[0]
    copied = ImageSource.from_arrays(np.stack(source.read(rows[:1])), np.zeros(1, np.int64))
    leaking = Reference(Split([(copied, np.arange(1))], torch.zeros(1, dtype=torch.long), reference.images.store), ())
    with pytest.raises(BenchError, match="hold 1"):
        references.refuse_leaks(leaking, stream, "copies")


@pytest.mark.parametrize("reference_is_files", [True, False])
def test_a_test_image_saved_as_a_file_is_recognised(reference_is_files, make_stream, tmp_path):
    from PIL import Image

    stream = make_stream()
    stream = Stream(stream.scenario, tuple(_with_test(task) for task in stream.tasks))
    source, rows = stream.tasks[1].test.pieces[0]
    Image.fromarray(np.asarray(source.read(rows[2:3])[0])).save(tmp_path / "one.png")
    Image.new("RGB", (9, 5)).save(tmp_path / "other.png")
    files = registry.load("reference", "folder").images(Folders(tmp_path / "none", tmp_path / "cache"), tmp_path)
    store, labels = stream.tasks[0].train.store, torch.zeros(2, dtype=torch.long)
    saved = Split([(files, np.arange(2))], labels, store)
    if not reference_is_files:  # the other way round: the stream's images are files, the reference lies in memory
        stream = Stream(stream.scenario, (replace(stream.tasks[0], train=saved, test=saved), *stream.tasks[1:]))
        saved = Split([(source, rows[2:3])], labels[:1], store)
    with pytest.raises(BenchError, match=f"hold 1 training images of task 'task {int(reference_is_files)}'"):
        references.refuse_leaks(Reference(saved, ()), stream, "saved")


def _with_test(task):
    return replace(task, test=task.train)
