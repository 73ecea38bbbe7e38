import math

import pytest
import torch

from methods.shared.schedules import cosine_by_epoch, cosine_per_iteration, one_cycle, warm_cosine_per_iteration, warmup_cosine


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


@pytest.mark.parametrize("steps", [4, 5, 10, 97])
def test_one_cycle_is_torchs_for_rates_and_for_the_momentum_that_goes_the_other_way(steps):
    weights = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([weights], lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.02, total_steps=steps)
    for step in range(steps):
        (group,) = optimiser.param_groups
        assert one_cycle(step, steps, 0.02 / 25, 0.02, 0.02 / 25e4) == pytest.approx(group["lr"], rel=1e-9)
        assert one_cycle(step, steps, 0.95, 0.85, 0.95) == pytest.approx(group["betas"][0], rel=1e-9)
        optimiser.step()
        if step < steps - 1:
            scheduler.step()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_cycle_that_cannot_rise_falls(steps):
    rates = [one_cycle(step, steps, 1.0, 25.0, 1e-4) for step in range(steps)]
    assert rates == sorted(rates, reverse=True) and rates[-1] == pytest.approx(1e-4) and max(rates) < 25


def test_the_cosine_by_epoch_is_at_its_floor_after_a_period_and_rises_again():
    rates = [cosine_by_epoch(0.5, 0.1, epoch, period=4) for epoch in range(9)]
    assert rates[0] == rates[8] == 0.5 and rates[4] == pytest.approx(0.1) and rates[3] == pytest.approx(rates[5])
    assert rates[2] == pytest.approx(0.3)
