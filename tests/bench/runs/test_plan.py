"""Plans: which runs, with which hyper-parameters, under which id."""

import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from bench.errors import BenchError
from bench.learning.method import Method, setting
from bench.runs import plan
from bench.runs.assignments import Assignment, check_methods, chosen_settings, identifying, parse, restored
from bench.runs.facts import Facts
from bench.runs.request import Request
from bench.runs.run import Run


@dataclass(frozen=True)
class ToySettings:
    rate: float = setting(0.1, "rate")
    epochs: int = setting(3, "epochs")
    words: str | None = setting(None, "words")
    mirror: bool = setting(True, "mirror")
    kind: Literal["a", "b"] = setting("a", "kind")
    layers: tuple[int, ...] = setting((0,), "layers")


class Toy(Method):
    """A toy."""

    Settings = ToySettings
    recipes = {"mini*": {"epochs": 5}, "mini60*": {"rate": 0.2}}


def settings(*given: str):
    assignments = [parse(one) for one in given]
    check_methods(assignments, ["toy"])
    return chosen_settings("toy", Toy, "other", assignments)[0]


def test_values_are_converted_to_the_type_of_their_field():
    given = ["toy.rate=1e-3", "toy.epochs=7", "toy.words=a photo of a", "toy.mirror=false", "toy.kind=b", "toy.layers=1,3"]
    assert settings(*given) == ToySettings(1e-3, 7, "a photo of a", False, "b", (1, 3))
    assert settings("toy.words=none") == ToySettings(words=None)


def test_settings_come_back_whole_from_json():
    chosen = settings("toy.layers=1,3", "toy.rate=1e-3")
    assert restored(ToySettings, json.loads(json.dumps(asdict(chosen)))) == chosen


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
        settings(given)
    assert message in str(caught.value)


def test_settings_are_defaults_then_recipes_in_order_then_overrides():
    assert Toy.settings_for("other") == ToySettings()
    assert Toy.settings_for("mini60-6x10", {"mirror": False}) == ToySettings(rate=0.2, epochs=5, mirror=False)


def build(protocols=("mini60-6x10",), methods=("zero-shot",), seeds=(0, 1), set=(), **changes) -> tuple[list[Run], list[str]]:
    request = Request(
        protocols, methods, seeds, device="cpu", precision="float32", set=tuple(parse(one) for one in set), **changes
    )
    with Facts() as facts:
        return plan.build(request, facts)


def test_every_fact_that_can_change_a_number_changes_the_run_id():
    run = build()[0][0]
    changed = [
        replace(run, seed=1),
        replace(run, order_seed=1),
        replace(run, weights="other"),
        replace(run, device="cuda"),
        replace(run, limit_train=5),
        replace(run, settings=asdict(ToySettings())),
        replace(run, method="other"),
        replace(run, method_version="2"),
        replace(run, protocol_version="2"),
    ]
    assert len({one.run_id for one in [run, *changed]}) == len(changed) + 1
    assert replace(run, out=Path("elsewhere")).run_id == run.run_id


def test_a_setting_that_was_added_later_leaves_finished_runs_valid():
    @dataclass(frozen=True)
    class Grown(ToySettings):
        option: bool = setting(False, "option", added_later=True)

    run = build()[0][0]
    before = replace(run, settings=identifying(ToySettings()))
    after, changed = (replace(run, settings=identifying(Grown(option=value))) for value in (False, True))
    assert after.run_id == before.run_id != changed.run_id
    assert changed.identity["settings"]["option"] is True


def test_a_fixed_order_has_one_order_seed():
    runs, notes = build(protocols=["mini-mtil-order1"], order_seeds=[0, 1], seeds=[0])
    assert [run.order_seed for run in runs] == [0]
    assert "one fixed order" in notes[0]


def test_all_methods_start_with_zero_shot():
    runs, _ = build(methods=["all"], seeds=[0])
    names = [run.method for run in runs]
    assert names[0] == "zero-shot"
    assert {"cgil", "coop", "finetune", "joint", "joint-prompts", "linear-probe"} <= set(names)


def test_a_method_that_lacks_what_it_needs_is_left_out_of_all_by_name_and_refused_if_asked_for():
    runs, notes = build(protocols=["cifar100-10x10"], methods=["all"], seeds=[0], data="synthetic")
    assert "clg-cbm" not in {run.method for run in runs}
    assert [note for note in notes if note.startswith("clg-cbm left out: it needs --set clg-cbm.concepts=")]
    with pytest.raises(BenchError, match="clg-cbm: it needs --set clg-cbm.concepts="):
        build(protocols=["cifar100-10x10"], methods=["zero-shot", "clg-cbm"], seeds=[0], data="synthetic")


def test_synthetic_images_make_another_run_that_its_records_name():
    real, made = (build(data=data, limit_train=3, seeds=[0])[0][0] for data in ("real", "synthetic"))
    assert (real.limits, made.limits) == ("train=3", "data=synthetic;train=3")
    assert real.run_id != made.run_id
    assert "SYNTHETIC" in plan.render([made], ["new"], [made.run_id])
    assert "SYNTHETIC" not in plan.render([real], ["new"], [real.run_id])


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


def test_a_planned_run_can_be_carried_out_and_sent_to_another_process():
    planned = build(methods=["cgil"], set=["cgil.vae_epochs=3"], seeds=[0])[0][0]
    loaded = planned.loaded()
    assert loaded.run == planned and loaded.settings.vae_epochs == 3
    assert type(loaded.settings) is loaded.method.Settings and loaded.protocol.name == planned.protocol
    assert Run.from_json(json.loads(json.dumps(planned.to_json()))) == planned


def test_a_run_on_a_folder_finds_it_again_wherever_it_lies(tmp_path):
    for image in range(4):
        path = tmp_path / "pets" / ("cat", "dog")[image % 2] / f"{image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # a plan opens no image
    planned = build(protocols=[f"folder:{tmp_path}/pets-2x1"], seeds=[0])[0][0]
    assert (planned.protocol, planned.tasks) == ("folder:pets-2x1", 2)
    sent = Run.from_json(json.loads(json.dumps(planned.to_json())))
    assert sent.loaded().protocol.dataset("folder:pets").info.class_names == ("cat", "dog")


def test_a_run_whose_method_has_changed_since_the_plan_is_refused():
    planned = build(seeds=[0])[0][0]
    with pytest.raises(BenchError, match="not what they were in the plan"):
        replace(planned, method_version="0").loaded()


def test_a_run_whose_protocol_has_changed_since_the_plan_is_refused():
    planned = build(seeds=[0])[0][0]
    with pytest.raises(BenchError, match="not what they were in the plan"):
        replace(planned, protocol_version="0").loaded()


def test_every_combination_of_a_grid_is_a_run_and_repeats_are_dropped():
    def axis(field, *values):
        return tuple(Assignment("coop", field, value, "grid") for value in values)

    runs, _ = build(
        methods=["zero-shot", "coop"], seeds=[0], grid=[axis("learning_rate", "0.1", "0.2", "0.20"), axis("epochs", "1", "2")]
    )
    assert [run.overrides for run in runs] == [
        "", "epochs=1;learning_rate=0.1", "epochs=2;learning_rate=0.1",
        "epochs=1;learning_rate=0.2", "epochs=2;learning_rate=0.2",
    ]  # fmt: skip


def test_an_ablation_is_one_more_run_on_top_of_the_other_changes():
    runs, _ = build(methods=["coop"], seeds=[0], set=["coop.epochs=1"], ablate=["coop.learning_rate=0.5"])
    assert [run.overrides for run in runs] == ["epochs=1", "epochs=1;learning_rate=0.5"]


REFUSE_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "open_clip"):
            raise ImportError(f"a plan imports {name}")

sys.meta_path.insert(0, Refuse())
"""
A_COMMAND = f"""{REFUSE_TORCH}
from bench.commands.main import main
main(sys.argv[1:])
"""
ALL_PROTOCOLS = f"""{REFUSE_TORCH}
from bench.streams import names
from bench.system import registry
for name in [*registry.names("protocol"), "mini60-3x20", "cifar100-10x10+order=natural"]:
    protocol = names.find(name)
    print(name, protocol.scenario(0).n_tasks, protocol.content, len(protocol.notes))
"""


def test_a_plan_needs_no_torch_and_keeps_no_image(tmp_path, cache):
    arguments = ["run", "--protocol", "mini60-6x10", "--methods", "zero-shot,cgil", "--set", "cgil.vae_epochs=3", "--dry-run"]
    command = [sys.executable, "-c", A_COMMAND, *arguments, "--cache-dir", str(tmp_path / "cache")]
    cold, warm = (subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300) for _ in range(2))
    assert cold.returncode == 0, cold.stderr
    runs = [re.findall(r"^mini60.*?[0-9a-f]{16}  new", one.stdout, re.MULTILINE) for one in (cold, warm)]  # not the times
    assert len(runs[0]) == 2 and runs[0] == runs[1] and "cgil vae_epochs=3" in warm.stdout
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["facts"]


def test_protocols_need_no_torch(tmp_path):
    found = subprocess.run([sys.executable, "-c", ALL_PROTOCOLS], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    assert "mini60-6x10 6 pinned 0" in found.stdout and len(found.stdout.splitlines()) > 30


def test_a_file_that_a_setting_names_is_part_of_the_run_by_its_content(tmp_path, monkeypatch):
    def planned(name):
        return build(methods=["engine"], seeds=[0], set=[f"engine.descriptions={name}"])[0][0]

    monkeypatch.chdir(tmp_path)
    Path("first.json").write_text("{}")
    run = planned("first.json")
    assert run.overrides.startswith("descriptions=first.json@")
    assert run.identity["settings"]["descriptions"].startswith("sha256:")
    assert Run.from_json(json.loads(json.dumps(run.to_json()))).loaded().settings.descriptions == str(tmp_path / "first.json")
    Path("first.json").rename("second.json")
    assert planned("second.json").run_id == run.run_id != build(methods=["engine"], seeds=[0])[0][0].run_id
    Path("first.json").write_text("{ }")
    assert planned("first.json").run_id != run.run_id
    with pytest.raises(BenchError, match="not what they were in the plan"):
        run.loaded()
