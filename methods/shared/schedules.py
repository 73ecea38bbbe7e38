"""Learning-rate schedules as pure functions: which fraction of the peak rate an update gets."""

import math


def warmup_cosine(update: int, iterations: int, warmup: int) -> float:
    """Linear warm-up, then a cosine to zero, stepped by update as in ZSCL's programs; in [0, 1].

    Updates are counted k = 0, 1, .., iterations: one more than `iterations`, and the last has rate 0.

        k <  warmup:  (k + 1) / warmup
        k >= warmup:  (1 + cos(pi (k - warmup) / (iterations - warmup))) / 2

    A run that is shorter than its warm-up never leaves it, so its rate stays below the peak. Where the two are equal the
    cosine has no length (0 / 0) at its only update, k = iterations: it is the end of the schedule, and gets rate 0.

    >>> [warmup_cosine(k, iterations=4, warmup=2) for k in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if update < warmup:
        return (update + 1) / warmup
    if update >= iterations:
        return 0.0
    return 0.5 * (1 + math.cos(math.pi * (update - warmup) / (iterations - warmup)))


def cosine_per_iteration(peak: float, steps: int, floor_factor: float) -> list[float]:
    """The rate of every step: a cosine from `peak` down towards `floor_factor * peak`, which it never quite reaches.

        rate_k = floor + (peak - floor) / 2 * (1 + cos(pi k / steps)),  k = 0 .. steps - 1

    >>> cosine_per_iteration(1.0, steps=2, floor_factor=0.0)
    [1.0, 0.5]
    """
    floor = floor_factor * peak
    return [floor + (peak - floor) / 2 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]


def warm_cosine_per_iteration(peak: float, steps: int, floor_factor: float, warm_up: float) -> list[float]:
    """The rate of every step in CLAP4CLIP's code: a linear warm-up over the fraction `warm_up` of the steps, then a cosine.

        w = floor(warm_up * steps)
        rate_k = peak (k + 1) / (w + 1)                                                     k <  w
        rate_k = cosine_per_iteration(peak, steps - w, floor_factor) at k - w               k >= w

    >>> warm_cosine_per_iteration(1.0, steps=4, floor_factor=0.0, warm_up=0.5)
    [0.3333333333333333, 0.6666666666666666, 1.0, 0.5]
    """
    rising = int(warm_up * steps)
    return [peak * (k + 1) / (rising + 1) for k in range(rising)] + cosine_per_iteration(peak, steps - rising, floor_factor)


def cosine_by_epoch(peak: float, floor: float, epoch: int, period: int) -> float:
    """The rate of an epoch, counted from 0: a cosine from `peak` that is at `floor` after `period` epochs, and then rises again.

    >>> [round(cosine_by_epoch(1.0, 0.0, epoch, period=2), 3) for epoch in range(5)]
    [1.0, 0.5, 0.0, 0.5, 1.0]
    """
    return floor + (peak - floor) / 2 * (1 + math.cos(math.pi * epoch / period))


def one_cycle(step: int, steps: int, start: float, top: float, end: float, rising: float = 0.3) -> float:
    """What a step of torch's one-cycle schedule uses, of a rate or of a momentum, which then goes the other way.

    From `start` to `top` in the first part (`rising`) of the steps, then to `end`, both along a cosine:

        e_1 = rising * steps - 1,   e_2 = steps - 1
        step <= e_1: at step / e_1 of the way to the top;   else at (step - e_1) / (e_2 - e_1) of the way from it

    With so few steps that e_1 <= 0 there is no first part.

    >>> [round(one_cycle(step, 10, 0.0, 1.0, 0.5), 3) for step in range(10)]
    [0.0, 0.5, 1.0, 0.975, 0.906, 0.806, 0.694, 0.594, 0.525, 0.5]
    """
    peak, last = rising * steps - 1, steps - 1
    if step <= peak and peak > 0:
        return top + (start - top) * (1 + math.cos(math.pi * step / peak)) / 2
    return end + (top - end) * (1 + math.cos(math.pi * (step - peak) / (last - peak))) / 2
