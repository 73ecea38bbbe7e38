"""Plans: which runs, with which hyper-parameters, under which id."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from bench import plan
from bench.errors import BenchError
from bench.method import Method, setting


@dataclass(frozen=True)
class ToySettings:
    rate: float = setting(0.1, "rate")
    epochs: int = setting(3, "epochs")
    words: str | None = setting(None, "words")
    mirror: bool = setting(True, "mirror")
    kind: Literal["a", "b"] = setting("a", "kind")


class Toy(Method):
    """A toy."""

    Settings = ToySettings
    recipes = {"mini*": {"epochs": 5}, "mini60*": {"rate": 0.2}}


METHODS = {"toy": Toy}


def test_values_are_converted_to_the_type_of_their_field():
    given = ["toy.rate=1e-3", "toy.epochs=7", "toy.words=a photo of a", "toy.mirror=false", "toy.kind=b"]
    found = plan.parse_overrides(given, METHODS)
    assert found == {"toy": {"rate": 1e-3, "epochs": 7, "words": "a photo of a", "mirror": False, "kind": "b"}}
    assert plan.parse_overrides(["toy.words=none"], METHODS) == {"toy": {"words": None}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("toy.rate", "write it as METHOD.FIELD=VALUE"),
        ("rate=1", "write it as METHOD.FIELD=VALUE"),
        ("tow.rate=1", "unknown method of this run 'tow'; did you mean toy"),
        ("toy.rat=1", "unknown hyper-parameter of toy 'rat'; did you mean rate"),
        ("toy.rate=fast", "a number is wanted, not 'fast'"),
        ("toy.epochs=1.5", "a whole number is wanted, not '1.5'"),
        ("toy.mirror=maybe", "true or false is wanted, not 'maybe'"),
        ("toy.kind=c", "choose one of a, b"),
    ],
)
def test_a_bad_override_says_what_is_wanted(given, message):
    with pytest.raises(BenchError) as caught:
        plan.parse_overrides([given], METHODS)
    assert message in str(caught.value)


def test_settings_are_defaults_then_recipes_in_order_then_overrides():
    assert Toy.settings_for("other") == ToySettings()
    assert Toy.settings_for("mini60-6x10", {"mirror": False}) == ToySettings(rate=0.2, epochs=5, mirror=False)


def build(**changes):
    arguments = dict(
        protocols=["mini60-6x10"], methods=["zero-shot"], order_seeds=[0], seeds=[0, 1], assignments=[], backbone="mini",
        pretrained=None, device="cpu", limit_train=None, limit_test=None, out=Path("results"),
    )  # fmt: skip
    return plan.build(**(arguments | changes))


def test_every_fact_that_can_change_a_number_changes_the_run_id():
    run = build()[0][0]
    changed = [
        replace(run, seed=1),
        replace(run, order_seed=1),
        replace(run, weights="other"),
        replace(run, device="cuda"),
        replace(run, limit_train=5),
        replace(run, settings=ToySettings()),
        replace(run, method_name="other"),
        replace(run, protocol=replace(run.protocol, version="2")),
    ]
    assert len({one.run_id for one in [run, *changed]}) == len(changed) + 1
    assert replace(run, out=Path("elsewhere")).run_id == run.run_id


def test_a_fixed_order_has_one_order_seed():
    runs, notes = build(protocols=["mini-mtil-order1"], order_seeds=[0, 1], seeds=[0])
    assert [run.order_seed for run in runs] == [0]
    assert "one fixed order" in notes[0]


def test_all_methods_start_with_zero_shot():
    runs, _ = build(methods=["all"], seeds=[0])
    names = [run.method_name for run in runs]
    assert names[0] == "zero-shot"
    assert {"cgil", "coop", "finetune", "joint", "joint-prompts", "linear-probe"} <= set(names)


def test_synthetic_images_make_another_run_that_its_records_name():
    real, made = (build(synthetic=synthetic, limit_train=3, seeds=[0])[0][0] for synthetic in (False, True))
    assert (real.limits, made.limits) == ("train=3", "data=synthetic;train=3")
    assert real.run_id != made.run_id
    assert "SYNTHETIC" in plan.render([made]) and "SYNTHETIC" not in plan.render([real])


def test_options_of_a_protocol_make_other_runs_and_keep_its_recipes():
    runs, _ = build(protocols=["mini60-6x10", "mini60-6x10+budgeted"], methods=["coop"], seeds=[0])
    assert len({run.run_id for run in runs}) == 2
    assert runs[0].settings == runs[1].settings
    assert runs[1].folder == Path("results/mini60-6x10+budgeted/coop") / runs[1].run_id


def test_an_order_seed_that_an_order_does_not_have_is_refused_before_anything_runs():
    with pytest.raises(BenchError, match="order seed 3: CGIL's class order exists for order seeds 0, 1 and 2 only"):
        build(protocols=["mini60-6x10+order=cgil"], order_seeds=[0, 3])


def test_a_named_order_that_is_fixed_has_one_order_seed():
    runs, notes = build(protocols=["mini60-6x10+order=natural"], order_seeds=[0, 1], seeds=[0])
    assert [run.order_seed for run in runs] == [0]
    assert "one fixed order" in notes[0]
