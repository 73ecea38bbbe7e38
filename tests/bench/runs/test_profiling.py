"""`bench profile`: phases that add up, operations that are counted, a store that the second method finds full."""

import json
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.runs.profiling.operations import OperationCounter, matrix_rate
from bench.system.phases import PHASES

QUICK = ("--protocol", "mini60-6x10", "--limit-train", "2", "--limit-test", "2")
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def profiled(start_profile):
    """Two methods on the same features, one after the other, and one on pixels."""
    methods = ("--methods", "simplecil,ranpac,finetune", "--set", "finetune.iterations=3")
    return json.loads(start_profile(*methods, "--format", "json"))


@pytest.fixture(scope="session")
def start_profile(cache):
    from click.testing import CliRunner

    from bench.commands.main import main

    def start(*arguments: str, code: int = 0) -> str:
        found = CliRunner().invoke(main, ["profile", *QUICK, "--threads", "1", "--cache-dir", str(cache), *arguments])
        assert found.exit_code == code, found.output
        return found.stdout if code == 0 else found.output

    return start


def test_phases_add_up_to_the_whole(profiled):
    for run in profiled["runs"]:
        assert list(run["seconds"]) == list(profiled["phases"]) == list(PHASES)
        assert sum(run["seconds"].values()) == pytest.approx(run["total_seconds"])
        assert sum(run["share"].values()) == pytest.approx(1)
        assert min(run["seconds"].values()) >= 0
        assert all(run["seconds"][phase] > 0 for phase in ("load", "train", "evaluate", "write"))


def test_the_second_method_on_a_store_encodes_nothing(profiled):
    first, second, _ = profiled["runs"]
    assert first["image_tower_passes"]["encode"] == 60 * 2 * 2 and first["seconds"]["encode"] > 0
    assert second["image_tower_passes"] == dict.fromkeys(PHASES, 0) and second["seconds"]["encode"] == 0
    assert first["operations"]["encode"] > 0 and second["operations"]["encode"] == 0
    assert first["floor_seconds"]["encoding"] > 0 and second["floor_seconds"]["encoding"] == 0
    assert second["encoded_images_per_second"] is None


def test_images_are_those_trained_on_and_each_test_image_as_often_as_it_was_scored(profiled):
    only_seen, _, every = profiled["runs"]  # the first cannot score classes that it has not learned
    assert every["images"] == 60 * 2 + 6 * 60 * 2
    assert only_seen["images"] == 60 * 2 + sum(10 * task * 2 for task in range(1, 7))


def test_a_method_on_pixels_passes_its_images_in_training(profiled):
    *_, pixels = profiled["runs"]
    assert pixels["image_tower_passes"]["encode"] == 0
    assert pixels["image_tower_passes"]["train"] > 0 and pixels["operations"]["train"] > pixels["operations"]["evaluate"] > 0


def test_the_floor_is_the_counted_arithmetic_at_the_measured_rate(profiled):
    for run in profiled["runs"]:
        floor = sum(run["floor_seconds"].values())
        assert floor == pytest.approx(sum(run["operations"].values()) / profiled["machine"]["rate"])
        assert run["total_over_floor"] == pytest.approx(run["total_seconds"] / floor)
        assert run["utilisation"] == pytest.approx(floor / run["total_seconds"])
        assert run["peak_memory_bytes"] > 1e8


def test_text_names_the_machine_and_every_phase(start_profile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = start_profile("--methods", "zero-shot", "--no-flops")
    assert "GFLOP/s" in text and "zero-shot" in text
    assert all(f"{phase}: " in text for phase in PHASES)
    assert not list(tmp_path.iterdir())  # results are thrown away


def test_stand_in_images_need_no_data_set(start_profile, tmp_path):
    data = ("--data", "synthetic", "--data-dir", str(tmp_path))
    [run] = json.loads(start_profile("--methods", "zero-shot", "--no-flops", *data, "--format", "json"))["runs"]
    assert run["limits"] == "data=synthetic;train=2;test=2"
    assert run["operations"] is None and run["floor_seconds"] is None


def test_a_failing_run_is_said_and_the_others_are_measured(start_profile):
    found = json.loads(
        start_profile("--methods", "coop,zero-shot", "--set", "coop.learning_rate=1e30", "--no-flops", "--format", "json")
    )
    assert [run["method"] for run in found["runs"]] == ["zero-shot"]
    [failure] = found["failures"]
    assert "coop" in failure and "not finite" in failure


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (("--methods", "coup"), "unknown method 'coup'; did you mean coop"),
        (("--methods", "coop", "--protocol", "mini61"), "unknown protocol 'mini61'"),
        (("--methods", "coop", "--set", "coop.nothing=1"), "unknown hyper-parameter of coop 'nothing'"),
        (("--methods", "coop", "--set", "coop.learning_rate=1e30"), "not finite"),
        ((), "--methods is wanted"),
    ],
)
def test_complaints_are_one_line(start_profile, arguments, complaint):
    text = start_profile(*arguments, code=2)
    assert complaint in text and text.count("\n") == 1


def test_operations_are_those_of_torchs_own_counter(small_backbone):
    """With gradients and without, where compound operations arrive whole."""

    def work() -> None:
        pixels = torch.ones(2, 3, 32, 32)
        with torch.inference_mode():
            small_backbone.encode_images(pixels)
        copy = small_backbone.trainable_copy()
        copy.encode_image(pixels).sum().backward()

    with FlopCounterMode(display=False) as wanted:
        work()
    with OperationCounter() as found:
        work()
    assert found.total == wanted.get_total_flops() > 0


def test_factorisations_count():
    matrix = torch.eye(12).expand(2, 12, 12).clone()
    with OperationCounter() as counter:
        factor = torch.linalg.cholesky(matrix)
        assert counter.total == 2 * 12**3 / 3
        torch.cholesky_solve(torch.ones(2, 12, 5), factor)
        assert counter.total == 2 * 12**3 / 3 + 2 * 2 * 12**2 * 5
    with OperationCounter() as counter:
        torch.linalg.eigh(matrix[0])
    assert counter.total == 9 * 12**3


def test_the_rate_of_a_matrix_product_is_finite_and_large():
    assert 1e8 < matrix_rate(CPU) < math.inf
