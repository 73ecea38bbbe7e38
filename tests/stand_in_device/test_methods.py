"""Every method learns on the stand-in device as on the CPU, with every switch and choice, and its steps wait for nothing."""

import pytest
import torch

from bench.system import registry
from tests.bench.conftest import cache  # noqa: F401  (a fixture)
from tests.bench.runs.test_methods_on_a_gpu import APART, difference
from tests.every_method import PRESETS
from tests.stand_in_device import steps, trials
from tests.stand_in_device.device import NAME, stand_in_device
from tests.stand_in_device.limits import beyond_limits

FAST = ("coop", "l2p")  # prompts on stored features, and prompts on pixels; all others are marked thorough
METHODS = [pytest.param(name, marks=() if name in FAST else pytest.mark.thorough) for name in registry.names("method")]
VARIATIONS = [
    pytest.param(name, change, id=f"{name}-{'-'.join(f'{key}={value}' for key, value in change.items())}")
    for name in registry.names("method")
    if name not in PRESETS
    for change in trials.variations(registry.load("method", name))
]
APART_BY_ROUNDING = 0.02  # of the largest score: other kernels, a few steps later


def assert_same_scores(ours: torch.Tensor, wanted: torch.Tensor) -> None:
    assert float((ours - wanted).abs().max()) <= APART_BY_ROUNDING * float(wanted.abs().max())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_on_it_and_no_step_waits(name, cache):  # noqa: F811
    method = registry.load("method", name)
    with stand_in_device(), steps.watched() as phases:
        ours = trials.learned(method, cache, NAME)
    assert_same_scores(ours, trials.learned(method, cache, "cpu"))
    assert not beyond_limits(name, phases)


@pytest.mark.thorough
@pytest.mark.parametrize("name, change", VARIATIONS)
def test_every_switch_and_choice_learns_on_it(name, change, cache):  # noqa: F811
    """Some need another setting beside them, and say so on the CPU: then they say it on the device as well."""
    method = registry.load("method", name)
    try:
        wanted = trials.learned(method, cache, "cpu", **change)
    except Exception as refusal:
        with stand_in_device(), pytest.raises(type(refusal)) as error:
            trials.learned(method, cache, NAME, **change)
        assert str(error.value) == str(refusal)
        return
    with stand_in_device():
        assert_same_scores(trials.learned(method, cache, NAME, **change), wanted)


@pytest.mark.thorough
@pytest.mark.parametrize("name", registry.names("method"))
def test_a_run_that_was_stopped_and_resumed_on_it_scores_as_on_the_cpu(name, tmp_path, cache):  # noqa: F811
    with stand_in_device():
        assert difference(name, tmp_path, cache, NAME) < APART
