"""Metrics of one accuracy matrix: arrays in, one number out.

A matrix is (T, T): row = after learning task t, column = test images of task k, values are fractions, NaN = not
measured. Every function needs the cells that its formula names; if one of them was not measured, or if nothing is
left to average (T = 1), the answer is NaN, "not available": never 0, and never a mean over the other cells. Indices
in the formulas start at 1, A[t, k] is the accuracy on task k after task t, n_k the number of test images of task k.

The worked examples use EXAMPLE, a stream of three tasks with IMAGES test images.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

NOT_AVAILABLE = float("nan")
EXAMPLE = np.array(
    [  # task 1, 2, 3
        [0.90, 0.60, 0.50],  # after task 1
        [0.85, 0.88, 0.56],  # after task 2
        [0.80, 0.84, 0.86],  # after task 3
    ]
)
IMAGES = np.array([100, 100, 200])


def _mean(values: npt.ArrayLike) -> float:
    """Mean that is NaN for no values (without numpy's warning) and whenever one of them is NaN."""
    numbers = np.asarray(values, dtype=float)
    return float(numbers.sum()) / numbers.size if numbers.size else NOT_AVAILABLE


# -- how good: averages over learned tasks ----------------------------------------------------------------------


def after_each_task(matrix: np.ndarray) -> np.ndarray:
    """(T,) accuracy over the tasks learned so far: step_t = 1/t * sum_{k<=t} A[t, k].

    >>> after_each_task(EXAMPLE).round(4).tolist()
    [0.9, 0.865, 0.8333]
    """
    return np.array([_mean(row[: t + 1]) for t, row in enumerate(np.asarray(matrix))])


def after_each_task_samples(matrix: np.ndarray, n: np.ndarray) -> np.ndarray:
    """(T,) as after_each_task, but every image counts the same: sum_{k<=t} n_k A[t, k] / sum_{k<=t} n_k.

    >>> after_each_task_samples(EXAMPLE, IMAGES).round(4).tolist()
    [0.9, 0.865, 0.84]
    """
    matrix, n = np.asarray(matrix), np.asarray(n, dtype=float)
    return np.array([row[: t + 1] @ n[: t + 1] / n[: t + 1].sum() for t, row in enumerate(matrix)])


def last(matrix: np.ndarray) -> float:
    """Last: accuracy after the last task, tasks weigh equally. 1/T * sum_k A[T, k].

    CLAP4CLIP, ZSCL and mammoth mean this by last / final average accuracy.
    (0.80 + 0.84 + 0.86) / 3:

    >>> round(last(EXAMPLE), 4)
    0.8333
    """
    return _mean(np.asarray(matrix)[-1])


def last_samples(matrix: np.ndarray, n: np.ndarray) -> float:
    """Last over images: sum_k n_k A[T, k] / sum_k n_k, what PyCIL, PILOT and RanPAC print as the last accuracy.

    (100 * 0.80 + 100 * 0.84 + 200 * 0.86) / 400:

    >>> round(last_samples(EXAMPLE, IMAGES), 4)
    0.84
    """
    return float(after_each_task_samples(matrix, n)[-1])


def avg(matrix: np.ndarray) -> float:
    """Avg: the mean over moments of the accuracy on the tasks learned so far (CLAP4CLIP). 1/T * sum_t step_t.

    (0.90 + 0.865 + 0.8333) / 3:

    >>> round(avg(EXAMPLE), 4)
    0.8661
    """
    return _mean(after_each_task(matrix))


def avg_samples(matrix: np.ndarray, n: np.ndarray) -> float:
    """Avg with images weighing equally inside a moment: the "average incremental accuracy" of iCaRL and PyCIL.

    (0.90 + 0.865 + 0.84) / 3:

    >>> round(avg_samples(EXAMPLE, IMAGES), 4)
    0.8683
    """
    return _mean(after_each_task_samples(matrix, n))


def avg_cells(matrix: np.ndarray) -> float:
    """Mean of all cells on and below the diagonal (accuracy A of Diaz-Rodriguez et al., arXiv 1810.13166).

    (0.90 + 0.85 + 0.88 + 0.80 + 0.84 + 0.86) / 6:

    >>> round(avg_cells(EXAMPLE), 4)
    0.855
    """
    matrix = np.asarray(matrix)
    return _mean(matrix[np.tril_indices(len(matrix))])


# -- how much is lost -------------------------------------------------------------------------------------------


def bwt(matrix: np.ndarray) -> float:
    """Backward transfer at the end (Lopez-Paz & Ranzato 2017; CLAP4CLIP, mammoth). Negative = forgetting.

    1/(T-1) * sum_{k<T} (A[T, k] - A[k, k]). Avalanche's "forgetting" is this number with the opposite sign.
    ((0.80 - 0.90) + (0.84 - 0.88)) / 2:

    >>> round(bwt(EXAMPLE), 4)
    -0.07
    """
    matrix = np.asarray(matrix)
    return _mean(matrix[-1, :-1] - np.diag(matrix)[:-1])


def bwt_all_moments(matrix: np.ndarray) -> float:
    """Backward transfer over all moments (Diaz-Rodriguez et al.): mean over k < t <= T of A[t, k] - A[k, k].

    ((0.85 - 0.90) + (0.80 - 0.90) + (0.84 - 0.88)) / 3:

    >>> round(bwt_all_moments(EXAMPLE), 4)
    -0.0633
    """
    matrix = np.asarray(matrix)
    return _mean((matrix - np.diag(matrix))[np.tril_indices(len(matrix), -1)])


def _best_minus_last(matrix: np.ndarray, rows: Callable[[int, int], slice]) -> float:
    matrix = np.asarray(matrix)
    tasks = len(matrix)
    return _mean([matrix[rows(k, tasks), k].max() - matrix[-1, k] for k in range(tasks - 1)])


def forgetting(matrix: np.ndarray) -> float:
    """Forgetting (Chaudhry et al. 2018; mammoth, FACIL): best earlier value since the task was learned, minus the last.

    1/(T-1) * sum_{k<T} (max_{k<=t<T} A[t, k] - A[T, k]). Below 0 when the last row is the best.
    ((0.90 - 0.80) + (0.88 - 0.84)) / 2:

    >>> round(forgetting(EXAMPLE), 4)
    0.07
    """
    return _best_minus_last(matrix, lambda k, tasks: slice(k, tasks - 1))


def forgetting_from_start(matrix: np.ndarray) -> float:
    """Forgetting where the best value may also lie before the task was learned: max over all rows t < T.

    The literal reading of the definition for models with zero-shot ability; it needs the cells above the diagonal.
    After task 1, task 2 had 0.90 in this example: ((0.90 - 0.80) + (0.90 - 0.84)) / 2:

    >>> round(forgetting_from_start([[0.90, 0.90, 0.50], [0.85, 0.88, 0.56], [0.80, 0.84, 0.86]]), 4)
    0.08
    """
    return _best_minus_last(matrix, lambda k, tasks: slice(0, tasks - 1))


def forgetting_nonnegative(matrix: np.ndarray) -> float:
    """Forgetting where the maximum includes the last row, so no task can have less than 0 (PyCIL, PILOT, L2P's code).

    Task 1 improves here from 0.70 to 0.80 and counts 0, not -0.1; task 2 loses 0.04: (0 + 0.04) / 2:

    >>> round(forgetting_nonnegative([[0.70, 0.60, 0.50], [0.75, 0.88, 0.56], [0.80, 0.84, 0.86]]), 4)
    0.02
    """
    return _best_minus_last(matrix, lambda k, tasks: slice(k, tasks))


# -- how good on what has not been learned ----------------------------------------------------------------------


def ci_transfer(matrix: np.ndarray) -> float:
    """CI-Transfer (CGIL, BMVC 2024): first the mean over future tasks at one moment, then over moments 1..T-1.

    1/(T-1) * sum_{t<T} 1/(T-t) * sum_{k>t} A[t, k]. Which classes compete is said by the matrix that is passed.
    ((0.60 + 0.50)/2 + 0.56) / 2:

    >>> round(ci_transfer(EXAMPLE), 4)
    0.555
    """
    matrix = np.asarray(matrix)
    return _mean([_mean(row[t + 1 :]) for t, row in enumerate(matrix[:-1])])


def transfer_per_task(matrix: np.ndarray) -> np.ndarray:
    """(T,) Transfer_k of ZSCL: mean of column k above the diagonal, 1/(k-1) * sum_{t<k} A[t, k]; NaN for the first.

    >>> transfer_per_task(EXAMPLE).round(4).tolist()
    [nan, 0.6, 0.53]
    """
    matrix = np.asarray(matrix)
    return np.array([_mean(matrix[:k, k]) for k in range(len(matrix))])


def column_mean_transfer(matrix: np.ndarray) -> float:
    """Transfer of ZSCL: the mean over tasks 2..T of their column means above the diagonal.

    (0.60 + (0.50 + 0.56)/2) / 2:

    >>> round(column_mean_transfer(EXAMPLE), 4)
    0.565
    """
    return _mean(transfer_per_task(matrix)[1:])


def flat_mean_transfer(matrix: np.ndarray) -> float:
    """The mean of all cells above the diagonal.

    (0.60 + 0.50 + 0.56) / 3:

    >>> round(flat_mean_transfer(EXAMPLE), 4)
    0.5533
    """
    matrix = np.asarray(matrix)
    return _mean(matrix[np.triu_indices(len(matrix), 1)])


def image_pooled_transfer(matrix: np.ndarray, n: np.ndarray) -> float:
    """As CI-Transfer, but at each moment all future images are pooled, so a large task counts more.

    1/(T-1) * sum_{t<T} (sum_{k>t} n_k A[t, k] / sum_{k>t} n_k).
    ((100 * 0.60 + 200 * 0.50)/300 + 0.56) / 2:

    >>> round(image_pooled_transfer(EXAMPLE, IMAGES), 4)
    0.5467
    """
    matrix, n = np.asarray(matrix), np.asarray(n, dtype=float)
    return _mean([row[t + 1 :] @ n[t + 1 :] / n[t + 1 :].sum() for t, row in enumerate(matrix[:-1])])


def forward_transfer(matrix: np.ndarray, baseline: np.ndarray) -> float:
    """Forward transfer (Lopez-Paz & Ranzato 2017; mammoth): the gain on a task just before it is learned.

    1/(T-1) * sum_{k>1} (A[k-1, k] - b_k), with b_k the accuracy on task k of an untrained model: here zero-shot CLIP
    (b_1 is not used). ((0.60 - 0.60) + (0.56 - 0.50)) / 2:

    >>> round(forward_transfer(EXAMPLE, [NOT_AVAILABLE, 0.60, 0.50]), 4)
    0.03
    """
    matrix = np.asarray(matrix)
    return _mean(np.diag(matrix, 1) - np.asarray(baseline, dtype=float)[1:])


def avg_per_task(matrix: np.ndarray) -> np.ndarray:
    """(T,) Avg_k of ZSCL: the mean of the whole column k, before and after the task is learned.

    >>> avg_per_task(EXAMPLE).round(4).tolist()
    [0.85, 0.7733, 0.64]
    """
    return np.asarray(matrix, dtype=float).mean(axis=0)


def all_cells_avg(matrix: np.ndarray) -> float:
    """Avg of ZSCL's MTIL: the mean of all T * T cells, learned or not (so it is not `avg`).

    (0.85 + 0.7733 + 0.64) / 3:

    >>> round(all_cells_avg(EXAMPLE), 4)
    0.7544
    """
    return _mean(matrix)
