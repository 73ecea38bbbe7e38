import math

import pytest

from methods.shared.schedules import cosine_per_iteration, warm_cosine_per_iteration, warmup_cosine


def test_rates_of_a_short_run_by_hand():
    rates = [warmup_cosine(k, iterations=6, warmup=2) for k in range(7)]
    assert rates == pytest.approx([0.5, 1, 1, 0.5 + math.sqrt(2) / 4, 0.5, 0.5 - math.sqrt(2) / 4, 0])


def test_the_paper_s_schedule_peaks_at_update_99_and_ends_at_exactly_zero():
    rates = [warmup_cosine(k, iterations=1000, warmup=100) for k in range(1001)]
    assert rates[0] == 0.01
    assert rates[99] == rates[100] == max(rates) == 1
    assert rates[550] == pytest.approx(0.5)
    assert rates[1000] == 0


def test_a_run_shorter_than_its_warm_up_never_peaks():
    assert [warmup_cosine(k, iterations=16, warmup=30) for k in (0, 16)] == pytest.approx([1 / 30, 17 / 30])


def test_a_run_as_long_as_its_warm_up_ends_with_rate_zero():
    assert warmup_cosine(29, iterations=30, warmup=30) == 1
    assert warmup_cosine(30, iterations=30, warmup=30) == 0


def test_without_warm_up_the_first_rate_is_the_peak():
    assert [warmup_cosine(k, iterations=2, warmup=0) for k in range(3)] == pytest.approx([1, 0.5, 0])


def test_clap_s_schedule_rises_over_three_tenths_of_the_steps_and_ends_above_its_floor():
    rates = warm_cosine_per_iteration(0.8, steps=10, floor_factor=1e-3, warm_up=0.3)
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[3:] == cosine_per_iteration(0.8, 7, 1e-3)
    assert rates[-1] > 0.8e-3
    assert warm_cosine_per_iteration(0.8, 3, 1e-3, 0.3) == cosine_per_iteration(0.8, 3, 1e-3)  # 0.9 steps are none
