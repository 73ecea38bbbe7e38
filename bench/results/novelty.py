"""Novelty detection (PhNDD of CLAP4CLIP): can the score tell images of learned tasks from images of future ones?

Seen images are the positive class and should score higher. The scores come for free with a prediction among the seen
classes: "energy" (log-sum-exp of the logits), "max_softmax" (confidence), "entropy" (its negative is used).

The worked examples have three seen images with scores 3, 2, 1 and two novel ones with 1.5, 0.5.
"""

from collections.abc import Callable

import numpy as np

SCORES = {"energy": ("energy", 1), "max_softmax": ("confidence", 1), "entropy": ("entropy", -1)}  # stored name, sign


def _labelled(seen: np.ndarray, novel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth = np.concatenate([np.ones(len(seen)), np.zeros(len(novel))])
    return truth, np.concatenate([np.asarray(seen, dtype=float), np.asarray(novel, dtype=float)])


def auroc(seen: np.ndarray, novel: np.ndarray) -> float:
    """Probability that a seen image scores higher than a novel one; ties count half.

    5 of the 6 pairs are in order:

    >>> round(auroc(np.array([3.0, 2.0, 1.0]), np.array([1.5, 0.5])), 4)
    0.8333
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_labelled(seen, novel)))


def aupr(seen: np.ndarray, novel: np.ndarray) -> float:
    """Average precision with seen as the positive class (step-wise sum, no interpolation).

    Precision at the three seen images, from the top: (1 + 1 + 3/4) / 3:

    >>> round(aupr(np.array([3.0, 2.0, 1.0]), np.array([1.5, 0.5])), 4)
    0.9167
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_labelled(seen, novel)))


def fpr95(seen: np.ndarray, novel: np.ndarray, recall: float = 0.95) -> float:
    """Share of novel images at or above the threshold whose recall of seen images is nearest to 0.95.

    The threshold is one of the observed scores, not below the first that recalls every seen image; of two equally
    near recalls the larger counts, of several thresholds with the same recall the lowest. (The definition of the OOD
    literature's common helper, which CLAP4CLIP uses.)
    Recalls are 1/3, 2/3 and, at threshold 1.0, 1, which is nearest; 1 of the 2 novel images scores above 1.0:

    >>> fpr95(np.array([3.0, 2.0, 1.0]), np.array([1.5, 0.5]))
    0.5
    """
    seen, novel = np.asarray(seen, dtype=float), np.asarray(novel, dtype=float)
    thresholds = np.unique(np.concatenate([seen, novel]))[::-1]  # descending
    seen_above = len(seen) - np.searchsorted(np.sort(seen), thresholds, side="left")  # images with score >= threshold
    novel_above = len(novel) - np.searchsorted(np.sort(novel), thresholds, side="left")
    stop = int(np.argmax(seen_above == len(seen))) + 1
    distance = np.abs(seen_above[:stop] / len(seen) - recall)[::-1]  # from the largest recall down
    return float(novel_above[:stop][::-1][np.argmin(distance)] / len(novel))


def over_moments(function: Callable[[np.ndarray, np.ndarray], float], moments: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The mean of one of the functions above over (seen, novel) pairs, one after every task but the last."""
    values = [function(seen, novel) for seen, novel in moments]
    return float(np.mean(values)) if values else float("nan")
