"""Whatever saves time changes no result: a run with each of the savings, and one without."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from bench.clip import text_tower
from bench.clip.backbone import Backbone
from bench.learning import evaluation
from bench.streams import features
from bench.system import parallel
from methods.cgil import stacked
from methods.fine_tuning import distilled_finetune, finetune
from methods.fine_tuning.distilled_finetune import DistilledFineTune
from tests.bench.small_runs import execute, small_run


def results(name: str, out: Path, cache: Path, **changes) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    run = small_run(name, out, **changes)
    execute(run, cache)
    return pd.read_csv(run.folder / "records.csv"), load_file(run.folder / "samples.safetensors")


def without_the_store(monkeypatch, count: Callable) -> None:
    def encoded_each_time(store, source, view="plain", layer="projected"):
        count()
        return store._encode(source, view, layer)

    monkeypatch.setattr(features.FeatureStore, "features", encoded_each_time)


def whole_text_tower(monkeypatch, count: Callable) -> None:
    """All 77 tokens through all blocks."""
    monkeypatch.setattr(text_tower, "prompt_length", lambda tokens: count() or tokens.shape[1])
    monkeypatch.setattr("bench.clip.backbone.prompt_length", lambda tokens: count() or tokens.shape[1])
    monkeypatch.setattr(text_tower, "has_plain_blocks", lambda clip: False)


def prompts_encoded_each_time(monkeypatch, count: Callable) -> None:
    def encode(backbone, texts, clip=None):
        count()
        return text_tower.encode_tokens(clip or backbone.clip, backbone.tokenize(texts))

    monkeypatch.setattr(Backbone, "encode_text", torch.no_grad()(encode))


def generators_one_by_one(monkeypatch, count: Callable) -> None:
    monkeypatch.setattr(stacked, "groups_of_classes", lambda n, *_: count() or [slice(k, k + 1) for k in range(n)])


def every_candidate_set_apart(monkeypatch, count: Callable) -> None:
    def evaluate(method, stream, after_task):
        for task in stream.tasks:
            inputs = task.test.inputs(method.inputs, torch.arange(len(task.test)))
            for name, classes in evaluation.candidate_sets(stream, after_task, task.index, method.zero_shot).items():
                count()
                with torch.inference_mode():
                    logits = torch.cat([method.logits(one[None], classes) for one in inputs])
                    yield evaluation._cell(logits.float().cpu(), classes, task.index, name, task.test.labels)

    monkeypatch.setattr("bench.runs.runner.evaluate", evaluate)


def teacher_asked_at_every_step(monkeypatch, count: Callable) -> None:
    @torch.no_grad()
    def teacher_features(method, rows, pixels):
        count()
        return method.lesson.teacher.encode_image(pixels)

    monkeypatch.setattr(DistilledFineTune, "teacher_features", teacher_features)


def batches_prepared_in_the_background(monkeypatch, count: Callable) -> None:
    """What a GPU does."""
    for module in (distilled_finetune, finetune):
        monkeypatch.setattr(
            module, "prefetched", lambda items, prepare, device: count() or parallel.in_background(items, prepare)
        )


def decoded_at_every_step(monkeypatch, count: Callable) -> None:
    monkeypatch.setenv("BENCH_IMAGE_MEMORY", "0")
    original = Backbone.resize
    monkeypatch.setattr(Backbone, "resize", lambda backbone, images: count() or original(backbone, images))


@pytest.mark.parametrize(
    "name, change",
    [
        ("simplecil", without_the_store),
        ("linear-probe", without_the_store),
        ("coop", whole_text_tower),
        ("continual-clip", prompts_encoded_each_time),
        ("clip-adapter", prompts_encoded_each_time),
        ("cgil", generators_one_by_one),
        ("coop", every_candidate_set_apart),
        pytest.param("finetune", every_candidate_set_apart, marks=pytest.mark.thorough),
        pytest.param("zscl", teacher_asked_at_every_step, marks=pytest.mark.thorough),
        ("lwf", teacher_asked_at_every_step),
        pytest.param("zscl", batches_prepared_in_the_background, marks=pytest.mark.thorough),
        pytest.param("finetune", decoded_at_every_step, marks=pytest.mark.thorough),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_results_are_the_same_without(name, change, tmp_path, cache, monkeypatch):
    records, samples = results(name, tmp_path / "with", cache)
    called = []
    change(monkeypatch, lambda: called.append(1))
    other_records, other_samples = results(name, tmp_path / "without", cache)
    assert called, "the way without the saving was never taken"
    pd.testing.assert_frame_equal(other_records, records, check_exact=True)  # accuracies
    assert samples.keys() == other_samples.keys() and samples
    for key, values in samples.items():
        np.testing.assert_allclose(other_samples[key], values, rtol=1e-3, atol=1e-4, err_msg=key)  # training grows rounding


def test_methods_of_one_command_encode_a_prompt_once(tmp_path, cache, small_backbone, monkeypatch):
    encoded = []
    original = text_tower.encode_tokens
    monkeypatch.setattr(
        "bench.clip.backbone.encode_tokens", lambda clip, tokens: encoded.append(len(tokens)) or original(clip, tokens)
    )
    backbone = Backbone(
        *(getattr(small_backbone, field) for field in ("name", "pretrained", "clip", "tokenizer", "transform", "digest")), "cpu"
    )
    first = backbone.encode_text(["a cat", "a dog"])
    first.zero_()  # what a method does with its copy is nobody else's business
    second = backbone.encode_text(["a cat", "a dog"])
    assert encoded == [2] and second.abs().sum() > 0
    backbone.encode_text(["a cat", "a dog"], clip=backbone.trainable_copy())  # these weights change
    assert encoded == [2, 2]
