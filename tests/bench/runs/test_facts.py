"""What a plan asks: from whom the answer comes, how long it lasts, and what happens where nobody answers."""

import sys

import pytest

from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.runs import questions
from bench.runs.facts import Facts
from bench.runs.helper import Helper
from bench.runs.questions import OfAllMethods, OfDevice, OfGpuMemory, OfMethod, OfSearch, OfSettings, OfWeights
from bench.runs.request import Request

EVERY_KIND = [
    OfMethod("coop"),
    OfAllMethods(),
    OfSettings("coop", "mini60-6x10", (("epochs", "1", "--set coop.epochs=1"),)),
    OfSearch("coop", "mini60-6x10", (), (("epochs", '{"low": 1, "high": 5}', "search.toml: coop.epochs"),)),
    OfWeights("mini", None),
    OfDevice("cpu", "auto"),
    OfGpuMemory(),
]


@pytest.mark.parametrize("question", EVERY_KIND, ids=lambda question: type(question).__name__)
def test_a_question_that_was_sent_has_the_same_answer(question):
    sent = questions.from_json(question.to_json())
    assert type(sent) is type(question) and sent.to_json() == question.to_json()
    assert sent.answer() == question.answer()
    assert {type(one) for one in EVERY_KIND} == set(questions.KINDS.values())


@pytest.fixture
def asked(monkeypatch):
    """The weights that were asked for; the answer is a file's digest."""
    found = []

    def answer(question: OfWeights) -> dict[str, str]:
        found.append(question.pretrained)
        return {"identity": "f" * 64 if question.pretrained == "weights.pt" else f"{question.backbone}:{question.pretrained}"}

    monkeypatch.setattr(OfWeights, "answer", answer)
    return found


def test_a_plan_asks_once_and_the_next_one_asks_only_what_may_have_changed(asked, tmp_path):
    folders = Folders(tmp_path / "data", tmp_path / "cache")
    for _ in range(2):
        with Facts(folders, here=True) as facts:
            for _ in range(3):
                assert facts.weights("ViT-B-16", "openai") == "ViT-B-16:openai"
                assert facts.weights("ViT-B-16", "weights.pt") == "f" * 64
    assert asked == ["openai", "weights.pt", "weights.pt"]


def test_answers_of_a_damaged_file_are_asked_again(asked, tmp_path):
    folders = Folders(tmp_path / "data", tmp_path / "cache")
    for _ in range(2):
        with Facts(folders, here=True) as facts:
            facts.weights("ViT-B-16", "openai")
        [file] = (tmp_path / "cache" / "facts").iterdir()
        file.write_text('{"half": ')
    assert asked == ["openai", "openai"]


def test_without_folders_nothing_is_kept(asked):
    for _ in range(2):
        with Facts(here=True) as facts:
            facts.weights("ViT-B-16", "openai")
    assert asked == ["openai", "openai"]


def test_methods_that_cannot_be_imported_are_tried_again_by_the_next_plan():
    assert OfAllMethods().lasts({"names": ["coop"], "broken": []})
    assert not OfAllMethods().lasts({"names": ["coop"], "broken": ["method 'novel' of package novel is broken"]})


def test_a_request_is_resolved_to_what_this_machine_has():
    with Facts(here=True) as facts:
        found = facts.resolved(Request(protocols=("mini60-6x10",), device="cpu"))
        assert found == Request(protocols=("mini60-6x10",), device="cpu", precision="float32")
        with pytest.raises(BenchError, match="write auto, cpu, cuda or cuda:N"):
            facts.resolved(Request(device="gpu"))


def test_what_the_user_can_mend_comes_back_from_the_helper_process():
    helper = Helper()
    try:
        with pytest.raises(BenchError, match="unknown method 'coup'; did you mean coop"):
            helper.ask(OfMethod("coup"))
        with pytest.raises(BenchError, match="unknown method 'cgli'; did you mean cgil"):  # it is still there
            helper.ask(OfMethod("cgli"))
    finally:
        helper.close()


def test_a_helper_process_that_has_ended_is_said(monkeypatch, tmp_path):
    ends = tmp_path / "python"
    ends.write_text("#!/bin/sh\nexit 1\n")
    ends.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(ends))
    helper = Helper()
    with pytest.raises(BenchError, match="the process that asks methods for their settings has ended"):
        helper.ask(OfMethod("coop"))
    helper.close()
