"""What each metric computes, written down: its formula, which classes compete, and the formula's cells for three tasks.

For people to read (`bench show METRIC`, docs/metrics.md). bench/results/metrics.py computes; bench/results/worked_examples.py
holds what is written here against it.
"""

from dataclasses import dataclass, replace

# who competes, by which matrix of a run the formula reads (bench/results/run_data.py)
LEARNED = (
    "class-incremental: the classes seen so far",
    "task-incremental: the task's own",
    "task-agnostic: all of the stream, or those seen and the task's own",
)
FUTURE = ("class-incremental: all classes of the stream", *LEARNED[1:])
BOTH = ("class-incremental: the classes seen so far, for a task to come all of the stream", *LEARNED[1:])
TASK, ALL, UNLEARNED = ("the task's own classes",), ("all classes of the stream",), ("the classes that are not learned yet",)
SEEN = ("the classes seen so far",)

# A[t, k] and the other letters of the formulas, by the letters
LETTERS = {
    "A[": "A[t, k]: accuracy on the test images of task k after task t; T: number of tasks",
    "n[": "n[k]: number of test images of task k",
    "b[k": "b[k]: accuracy of zero-shot CLIP on task k",
    "b[t": "b[t, k]: accuracy of zero-shot CLIP on task k, among the classes that compete after task t",
}


@dataclass(frozen=True)
class Formula:
    """Of one metric."""

    text: str
    among: tuple[str, ...]  # the classes that compete
    cells: str = ""  # for three tasks: A32 is A[3, 2], n2 is n[2], b2 is b[2]; empty where single images are needed
    words: tuple[str, ...] = ()  # what its words mean

    @property
    def meanings(self) -> list[str]:
        """What its letters and words are."""
        return [*(meaning for letter, meaning in LETTERS.items() if letter in self.text), *self.words]


_LAST = "(A31 + A32 + A33) / 3"
_AVG = "(A11 + (A21 + A22) / 2 + (A31 + A32 + A33) / 3) / 3"
_ALL_CELLS = "(A11 + A12 + A13 + A21 + A22 + A23 + A31 + A32 + A33) / 9"
_ROWS, _COLUMNS = "((A12 + A13) / 2 + A23) / 2", "(A12 + (A13 + A23) / 2) / 2"
_OVER_ROWS = "1/(T-1) sum_{t<T} 1/(T-t) sum_{k>t} A[t, k]"
_OVER_COLUMNS = "1/(T-1) sum_{k>1} 1/(k-1) sum_{t<k} A[t, k]"

OF_MATRICES: dict[str, Formula] = {
    "last": Formula("1/T sum_k A[T, k]", LEARNED, _LAST),
    "last_samples": Formula(
        "sum_k n[k] A[T, k] / sum_k n[k]", LEARNED, "(n1 * A31 + n2 * A32 + n3 * A33) / (n1 + n2 + n3)",
    ),
    "last_task": Formula("1/T sum_k A[T, k]", TASK, _LAST),
    "avg": Formula("1/T sum_t 1/t sum_{k<=t} A[t, k]", LEARNED, _AVG),
    "avg_samples": Formula(
        "1/T sum_t (sum_{k<=t} n[k] A[t, k] / sum_{k<=t} n[k])", LEARNED,
        "(A11 + (n1 * A21 + n2 * A22) / (n1 + n2) + (n1 * A31 + n2 * A32 + n3 * A33) / (n1 + n2 + n3)) / 3",
    ),
    "avg_task": Formula("1/T sum_t 1/t sum_{k<=t} A[t, k]", TASK, _AVG),
    "avg_cells": Formula("2/(T(T+1)) sum_t sum_{k<=t} A[t, k]", LEARNED, "(A11 + A21 + A22 + A31 + A32 + A33) / 6"),
    "bwt": Formula("1/(T-1) sum_{k<T} (A[T, k] - A[k, k])", LEARNED, "((A31 - A11) + (A32 - A22)) / 2"),
    "bwt_all_moments": Formula(
        "2/(T(T-1)) sum_{k<t<=T} (A[t, k] - A[k, k])", LEARNED, "((A21 - A11) + (A31 - A11) + (A32 - A22)) / 3",
    ),
    "forgetting": Formula(
        "1/(T-1) sum_{k<T} (max_{k<=t<T} A[t, k] - A[T, k])", LEARNED, "((max(A11, A21) - A31) + (A22 - A32)) / 2",
    ),
    "forgetting_from_start": Formula(
        "1/(T-1) sum_{k<T} (max_{t<T} A[t, k] - A[T, k])", TASK, "((max(A11, A21) - A31) + (max(A12, A22) - A32)) / 2",
    ),
    "forgetting_nonnegative": Formula(
        "1/(T-1) sum_{k<T} (max_{k<=t<=T} A[t, k] - A[T, k])", LEARNED,
        "((max(A11, A21, A31) - A31) + (max(A22, A32) - A32)) / 2",
    ),
    "forward_transfer": Formula("1/(T-1) sum_{k>1} (A[k-1, k] - b[k])", FUTURE, "((A12 - b2) + (A23 - b3)) / 2"),
    "ci_transfer": Formula(_OVER_ROWS, ALL, _ROWS),
    "ci_transfer_future": Formula(_OVER_ROWS, UNLEARNED, _ROWS),
    "ci_transfer_task": Formula(_OVER_ROWS, TASK, _ROWS),
    "column_mean_transfer": Formula(_OVER_COLUMNS, ALL, _COLUMNS),
    "flat_mean_transfer": Formula("2/(T(T-1)) sum_{t<k} A[t, k]", ALL, "(A12 + A13 + A23) / 3"),
    "image_pooled_transfer": Formula(
        "1/(T-1) sum_{t<T} (sum_{k>t} n[k] A[t, k] / sum_{k>t} n[k])", ALL, "((n2 * A12 + n3 * A13) / (n2 + n3) + A23) / 2",
    ),
    "mtil_transfer": Formula(_OVER_COLUMNS, TASK, _COLUMNS),
    "mtil_avg": Formula("1/T^2 sum_t sum_k A[t, k]", TASK, _ALL_CELLS),
    "mtil_last": Formula("1/T sum_k A[T, k]", TASK, _LAST),
    "agnostic_transfer": Formula(_OVER_COLUMNS, FUTURE, _COLUMNS),
    "zero_shot_transfer": Formula(_OVER_COLUMNS.replace("A[", "b["), FUTURE, "(b2 + (b3 + b3) / 2) / 2"),
    "agnostic_avg": Formula("1/T^2 sum_t sum_k A[t, k]", BOTH, _ALL_CELLS),
}  # fmt: skip

_ECE = "sum over bins of n_bin/n |accuracy_bin - confidence_bin|"
_BINS = ("bin: of the predictions' confidences, 15 of equal width from 0 to 1", "confidence_bin: the mean confidence in it")
_NOVELTY = {
    "auroc": Formula("mean over t < T of P(score of a seen image > score of a novel one)", SEEN, words=("ties count half",)),
    "aupr": Formula(
        "mean over t < T of 1/|seen| sum over seen images of the share of seen ones among all images that score as high", SEEN,
    ),
    "fpr95": Formula(
        "mean over t < T of the share of novel images that score as high as the threshold", SEEN,
        words=("threshold: as high score 95% of the seen images, or the share that is nearest (of two, the larger)",),
    ),
}  # fmt: skip
_PARTS = ("seen: test images of tasks 1 to t; novel: of tasks t+1 to T",)
_SCORES = {
    "": "score: the energy, log sum_c exp(logit_c)",
    "_max_softmax": "score: the largest softmax probability",
    "_entropy": "score: the entropy of the softmax probabilities with the opposite sign",
}
OF_IMAGES: dict[str, Formula] = {
    "ece": Formula(_ECE, LEARNED, words=("n: all test images, after the last task", *_BINS)),
    "ece_batch32": Formula(
        f"mean over batches of {_ECE}", LEARNED,
        words=("batch: 32 test images of one task, n of them, after the last task", *_BINS),
    ),
    **{
        f"{name}{suffix}": replace(formula, words=(*formula.words, *_PARTS, score))
        for suffix, score in _SCORES.items()
        for name, formula in _NOVELTY.items()
    },
}  # fmt: skip
FORMULAS = OF_MATRICES | OF_IMAGES
