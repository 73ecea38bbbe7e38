"""`bench show` says what an author has stated, and that nothing is stated where nothing is."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from bench.checks import method as contract
from bench.commands import show
from bench.commands.further_texts import further_texts
from bench.images.dataset import Dataset, DatasetInfo
from bench.learning.method import Method, setting
from bench.learning.stated import UNSTATED, is_stated, source_of
from bench.results import conformance
from bench.runs.runner import _cost
from bench.system import registry
from methods.text_prompts.coop import CoOp
from protocols import class_incremental


@dataclass(frozen=True)
class SilentSettings:
    rate: float = setting(0.1, "of SGD")
    steps: int = setting(7, "", source="a guess")


class Silent(Method):
    """A plug-in whose author says nothing but this."""

    Settings = SilentSettings


class Extended(CoOp):
    """A plug-in that changes a built-in method, and says nothing of what it has become."""


class Speaking(Method):
    """A plug-in that says everything."""

    paper, trains, conformance = "folklore", "nothing", "checked: nothing yet"
    inputs, needs, zero_shot, joint, scenarios = "pixels", ("towers",), False, False, ("class-incremental",)

    def exemplar_bytes(self):
        return 12


class FurtherSpeaking(Speaking):
    """Its base is its author's own."""


def facts(method: type[Method]) -> dict[str, str]:
    """The rows above the docstring: what is said about what."""
    page = show._method("some-name", method)
    rows = page.split("\n\n")[0].splitlines()[1:]
    width = max(len(name) for name in ("paper", "trains", "scores unlearned classes"))
    return {row[:width].strip(): row[width:].strip() for row in rows}


def test_a_plugin_that_says_nothing_makes_no_claim():
    said = facts(Silent)
    assert said["paper"] == said["trains"] == said["conformance"] == UNSTATED == "nothing stated by its author"
    for by_default in ("sees", "needs", "scores unlearned classes", "learns", "scenarios"):
        assert said[by_default].endswith(f" (by default: {UNSTATED})"), by_default
    assert "extends" not in said


def test_what_is_said_of_a_built_in_method_is_not_said_of_one_that_extends_it():
    said = facts(Extended)
    assert said["paper"] == said["trains"] == said["conformance"] == UNSTATED
    assert said["extends"] == "CoOp of methods.text_prompts.coop (bench show coop)"
    assert said["sees"].startswith(CoOp.inputs)
    assert "2109.01134" not in show._method("extended", Extended)


@pytest.mark.parametrize("method", [Speaking, FurtherSpeaking])
def test_what_an_author_says_is_shown_as_it_is(method):
    assert facts(method) == {
        "paper": "folklore",
        "trains": "nothing",
        "sees": "pixels of the images",
        "needs": "CLIP's towers: no file of embeddings is enough",
        "scores unlearned classes": "no: its zero-shot cells stay empty",
        "learns": "task after task",
        "scenarios": "class-incremental",
        "conformance": "checked: nothing yet",
    }


def test_a_method_whose_scores_depend_on_the_classes_asked_for_says_so():
    assert facts(registry.load("method", "bofa"))["scores of a class"].startswith("depend on the other classes asked for")
    assert "scores of a class" not in facts(registry.load("method", "coop"))


def test_a_file_that_ships_with_a_method_is_shown_without_the_place_of_its_installation():
    assert "concepts=methods/clg_cbm/mini_concepts.json" in show.show("clg-cbm")


def test_an_empty_claim_is_none():
    class Empty(Speaking):
        conformance = ""

    assert facts(Empty)["conformance"] == UNSTATED


@pytest.mark.parametrize("name", registry.names("method"))
def test_every_built_in_method_says_everything(name):
    assert UNSTATED not in show.show(name)


@pytest.mark.parametrize("name", registry.names("method"))
def test_a_method_that_is_read_from_its_source_says_what_the_imported_one_says(name):
    assert show._method(name, show._method_class(name)) == show._method(name, registry.load("method", name))


def test_what_a_method_needs_of_clip_is_said_in_words():
    assert facts(show._method_class("bofa"))["needs"].startswith("embeddings of images from before the projection, the matrix")
    assert facts(show._method_class("finetune"))["needs"] == "CLIP's towers: no file of embeddings is enough"
    for name, said in {
        "simplecil": "embeddings of images from before the projection; runs on a file of them (embeddings:FILE); "
        "with feature=projected: embeddings of images; runs on a file of them (embeddings:FILE)",
        "clip-adapter": "CLIP's towers: no file of embeddings is enough; "
        "with mirrored_view=False: embeddings of images, embeddings of the prompts; runs on a file of them (embeddings:FILE)",
    }.items():
        assert facts(show._method_class(name))["needs"] == said


@pytest.mark.parametrize("name", registry.names("method"))
def test_a_page_has_the_texts_of_all_that_a_method_extends(name):
    page, method = show.show(name), registry.load("method", name)
    bases = [base for base in method.__mro__[1:] if issubclass(base, Method) and base is not Method]
    for base in bases:
        assert all(line.strip() in page for line in (vars(base)["__doc__"] or "").splitlines()), base
        assert f"({base.__module__.replace('.', '/')}.py), which it extends:" in page


def test_the_page_of_zscl_is_complete():
    page = show.show("zscl-star")
    for words in (
        "L = L_ce + image_weight L_img + text_weight L_txt + l2_weight sum",  # of zscl
        "KD(P, Q; T) = T^2 mean over rows",  # of its distillation
        "L    = -1/B sum_i sum_c q_ic log softmax(z_i)_c",  # of finetune
        "A new AdamW and a new schedule start with each",
        "random crops are taken from the resized and centre-cropped square",  # deviations of finetune
        "from finetune (methods/fine_tuning/finetune.py), which it extends:",
    ):
        assert words in page


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("dpw", "diki (methods/residual_attention/diki.py), which is named above"),
        ("rail-dual", "rail-primal (methods/closed_form/rail.py), which is named above"),
        ("clap-maple", "methods/text_prompts/deep_prompts.py, which is named above"),
        ("clap-maple", "methods/clap/head.py, which is named above"),  # by clap, which it extends
        ("cgil", "methods/cgil/vae.py, which is named above"),  # named as vae.py
    ],
)
def test_a_page_has_the_texts_that_it_names(name, heading):
    assert heading in [source for source, _ in further_texts(show._method_class(name))]


def test_no_text_stands_twice_on_a_page():
    for name in registry.names("method"):
        texts = [text for _, text in further_texts(show._method_class(name))]
        assert len(set(texts)) == len(texts) and show._method_class(name).__doc__ not in texts


def test_of_a_plugin_only_its_authors_texts_are_added():
    assert [text for _, text in further_texts(FurtherSpeaking)] == ["A plug-in that says everything."]
    assert further_texts(Extended) == []


def test_a_compared_method_names_the_code_and_the_largest_errors():
    page = show.show("rail-dual")
    [error], code = conformance.errors_of("rail-dual"), conformance.authors_code()["rail"]
    assert all(word in page for word in (code.repository, code.commit, code.commit_date))
    measured = ("rail/vectors.npz", f"{error.worst:.3g}", error.worst_array, error.limits, error.measured, error.made_with)
    assert all(word in page for word in measured)
    assert "compared with the numbers of" not in show.show("er")


def test_what_was_measured_of_a_built_in_method_is_not_shown_of_a_plugin_of_its_name():
    assert "compared with the numbers of" in show._method("coop", CoOp)
    assert "compared with the numbers of" not in show._method("coop", Extended)


def test_no_built_in_method_has_to_be_imported_to_be_shown():
    assert not [name for name in registry.names("method") if show._method_class(name) is registry.load("method", name)]


def test_a_plugin_is_imported_because_whether_that_works_is_worth_knowing(monkeypatch):
    monkeypatch.setattr(registry, "package", lambda kind, name: "somebodys-plugin")
    assert show._method_class("coop") is CoOp


def test_only_a_built_in_default_is_known_to_be_from_authors_code():
    rate, steps = SilentSettings.__dataclass_fields__.values()
    assert source_of(SilentSettings, rate) == UNSTATED and source_of(SilentSettings, steps) == "a guess"
    page = show._method("silent", Silent)
    assert "authors' code" not in page and "help" not in page
    [steps_row] = [line for line in page.splitlines() if line.startswith("steps")]
    assert UNSTATED in steps_row and steps_row.endswith("a guess")
    own = CoOp.Settings.__dataclass_fields__["context_length"]

    @dataclass(frozen=True)
    class Longer(CoOp.Settings):
        context_length: int = setting(99, "tokens")

    assert source_of(CoOp.Settings, own) == own.metadata["source"]
    assert source_of(Longer, Longer.__dataclass_fields__["context_length"]) == UNSTATED
    cgil = registry.load("method", "cgil").Settings
    unsaid = next(field for field in cgil.__dataclass_fields__.values() if not field.metadata["source"])
    assert source_of(cgil, unsaid) == "authors' code"


def test_bench_check_asks_for_the_plugins_own_words():
    bench = contract.Trial("extended", Extended, None, None, None)
    assert contract.describes_itself(bench) == "missing: paper, trains"
    assert contract.describes_itself(contract.Trial("speaking", Speaking, None, None, None)) == ""


@pytest.mark.parametrize(("kind", "said"), [(Silent, None), (Speaking, 12)])
def test_memory_that_a_plugin_does_not_speak_of_is_not_said_to_be_none(kind, said):
    backbone = SimpleNamespace(device=torch.device("cpu"), frozen_parameters=6)
    assert _cost(kind(kind.Settings(), backbone, None, None), backbone)["exemplar_bytes"] == said
    assert is_stated(registry.load("method", "zero-shot"), "exemplar_bytes")  # a built-in that keeps none knows it


def test_a_protocol_or_data_set_without_a_source_says_so():
    info = DatasetInfo("plain", "1", ("a", "b"), ("a {}.",), "two classes", "")
    dataset = Dataset(info, lambda split, folders: None)
    page = show._dataset("plain", dataset)
    assert f"origin     {UNSTATED}" in page and "not stated / not stated for training / testing" in page
    made = class_incremental.protocol("plain-2x1", "plain", [1, 1], "1", "two tasks", datasets={"plain": dataset})
    page = show._protocol("plain-2x1", made)
    assert UNSTATED in next(line for line in page.splitlines() if line.startswith("source"))


@pytest.mark.parametrize("name", [*registry.names("protocol"), "cifar100-5x20"])
def test_every_built_in_protocol_names_its_source(name):
    page = show.show(name)
    assert UNSTATED not in page and "\nsource " in page


@pytest.mark.parametrize("name", registry.names("dataset"))
def test_every_built_in_data_set_names_its_origin(name):
    assert UNSTATED not in show.show(name)
