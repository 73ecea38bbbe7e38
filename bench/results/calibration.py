"""Expected calibration error: does a confidence of 0.8 mean that 80 percent are right?"""

import numpy as np

BINS = 15


def bin_of(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """(n,) the bin of each confidence (n,): bin b holds (b/bins, (b+1)/bins]; the first one also holds 0.

    >>> bin_of(np.array([0.0, 0.5, 0.51, 1.0]), bins=2).tolist()
    [0, 0, 1, 1]
    """
    edges = np.linspace(0, 1, bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)


def ece(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error over equal-width bins (Guo et al. 2017): sum_b n_b/n * |accuracy_b - confidence_b|.

    confidence: (n,) largest softmax probability; correct: (n,) whether the prediction is right. Equals torchmetrics'
    MulticlassCalibrationError except on the very edges: its bins are closed below, so a confidence of exactly 1 is a bin of
    its own there.

    Bins (0.933, 1] and (0.533, 0.6]: 2/4 * |0.5 - 0.95| + 2/4 * |1 - 0.55|:

    >>> round(ece(np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True])), 4)
    0.45
    """
    confidence = np.asarray(confidence, dtype=float)
    if not confidence.size:
        return float("nan")
    place = bin_of(confidence, bins)
    # n_b * |accuracy_b - confidence_b| = |sum over the bin of (correct - confidence)|
    gap = np.bincount(place, weights=np.asarray(correct, dtype=float) - confidence, minlength=bins)
    return float(np.abs(gap).sum() / confidence.size)


def ece_batched(tasks: list[tuple[np.ndarray, np.ndarray]], batch_size: int = 32, bins: int = BINS) -> float:
    """The ECE as CLAP4CLIP's code computes it: of each test batch by itself, then the mean over all batches.

    tasks: (confidence, correct) of each seen task. Every task is cut into batches by itself, its last batch may be
    smaller, and every batch weighs the same. Biased upwards (few images a bin), so only for comparing with that paper.

    The four images above in batches of two: |0.5 - 0.95| and |1 - 0.55|:

    >>> one_task = (np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True]))
    >>> round(ece_batched([one_task], batch_size=2), 4)
    0.45
    """
    values = [
        ece(confidence[start : start + batch_size], correct[start : start + batch_size], bins)
        for confidence, correct in tasks
        for start in range(0, len(confidence), batch_size)
    ]
    return float(np.mean(values)) if values else float("nan")
