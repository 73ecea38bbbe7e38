"""A short campaign of random faults; the long one is kept in docs/reliability.md."""

import pytest

from tests.faults.campaign import carry_out


@pytest.mark.slow
def test_after_a_few_random_faults_the_same_command_gives_the_same_files(tmp_path):
    tally = carry_out(faults=10, seed=1, folder=tmp_path / "disk")
    assert tally.wrong == []
    assert tally.faults == 10 and tally.files >= 8 * tally.rounds
