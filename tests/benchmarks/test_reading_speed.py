"""What reads finished runs answers soon: pytest tests/benchmarks/test_reading_speed.py -m "slow or not slow"."""

import pytest

from tests.benchmarks import reading


@pytest.mark.slow
def test_reading_commands_take_few_imports_of_pandas():
    for what, ratio in reading.measure().items():
        print(what, round(ratio, 2))
        assert ratio < reading.AT_MOST[reading.CALLS[what].split()[0]], what


def test_a_command_is_measured_and_one_that_fails_is_no_measurement(tmp_path):
    assert 0 < reading.ratio_of(["show", "forgetting"], tmp_path) < 50
    with pytest.raises(AssertionError):
        reading.ratio_of(["table", "nowhere"], tmp_path)
