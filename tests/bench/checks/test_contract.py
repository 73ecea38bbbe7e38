"""The contract that `bench check` holds methods to, and that it notices those who break it."""

import pytest
import torch

from bench.checks import method as contract
from bench.images.dataset import Folders
from bench.learning.method import Method
from bench.system import registry
from tests.every_method import every_method

QUICK = ("cgil", "clip-adapter", "coop", "l2p", "rail-primal", "simplecil", "zero-shot")


@pytest.mark.parametrize("name", every_method(QUICK))
def test_every_method_keeps_the_contract(name, cache):
    broken = [result for result in contract.check(name, Folders(cache, cache)) if not result.passed]
    assert not broken


class Cheat(Method):
    """Breaks what it can."""

    paper, trains = "none", "nothing"

    def prepare(self):
        self.learned = []  # not a buffer: lost on resume

    def learn(self, task):
        self.learned.append(torch.rand(1))  # global randomness
        self.backbone.clip.logit_scale.data.add_(0.01)

    def logits(self, batch, classes):
        scores = batch.mean(dim=0).expand(len(batch), -1)[:, : len(classes)]  # depends on the batch and on the list
        return scores + sum(self.learned)


class Peeks(Method):
    """Trains on test images."""

    paper, trains = "none", "nothing"

    def learn(self, task):
        task.test.features()


def broken_promises(method, cache, monkeypatch) -> str:
    monkeypatch.setattr(registry, "load", lambda kind, name, load=registry.load: method if kind == "method" else load(kind, name))
    return " | ".join(f"{r.name}: {r.detail}" for r in contract.check("some", Folders(cache, cache)) if not r.passed)


def test_a_method_that_breaks_promises_is_told_which(cache, monkeypatch):
    before = contract.backbones.load("mini", None, "cpu").clip.logit_scale.detach().clone()
    found = broken_promises(Cheat, cache, monkeypatch)
    contract.backbones.load("mini", None, "cpu").clip.logit_scale.data.copy_(before)
    for complaint in (
        "depend on the list",
        "depend on the batch",
        "two runs differ",
        "resumed after task",
        "weights have changed",
    ):
        assert complaint in found


def test_a_method_that_peeks_at_test_images_is_caught(cache, monkeypatch):
    assert "test data may not be used in training" in broken_promises(Peeks, cache, monkeypatch)


def test_what_a_method_says_that_it_needs_of_clip_is_tried(cache, monkeypatch):
    from methods.closed_form.simplecil import SimpleCIL
    from methods.text_prompts.coop import CoOp
    from methods.zero_shot import ZeroShot

    def said(base, needs) -> str:
        return broken_promises(type("Liar", (base,), {"needs": needs, "__doc__": base.__doc__}), cache, monkeypatch)

    assert "it says that it needs features, texts alone: the tokens of a text are wanted" in said(CoOp, ("features", "texts"))
    assert "needs" not in said(ZeroShot, ("features", "texts"))
    assert "it says that it needs features, and read needs = ('features', 'texts')" in said(ZeroShot, ("features",))
    assert "it says that it needs CLIP's towers, and learns without: needs = ('pooled',)" in said(SimpleCIL, ("towers",))
    assert "needs: unknown text" in said(ZeroShot, ("features", "text"))
