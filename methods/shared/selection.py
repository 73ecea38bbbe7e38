"""Which training images become exemplars: the rules of CLAP4CLIP's code, from the logits of the current model.

Logits are (n, samples, classes): methods that sample their weights give several predictions an image, the others one.
Every rule turns them into a rank of the images of each class; the first `per_class` of each class are kept.
"""

from collections.abc import Callable

import numpy as np

NEAR_TIE = 1e4  # of herding's squared distances, as a multiple of the rounding error of 1


def softmax(logits: np.ndarray) -> np.ndarray:
    """(..., classes) probabilities."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def energy(logits: np.ndarray) -> np.ndarray:
    """Log-sum-exp over the last axis: minus the free energy at temperature 1, large = familiar.

    >>> round(float(energy(np.log([1.0, 2.0, 5.0]))), 4) == round(float(np.log(8)), 4)
    True
    """
    top = logits.max(axis=-1, keepdims=True)
    return np.log(np.exp(logits - top).sum(axis=-1)) + top[..., 0]


def entropy(logits: np.ndarray) -> np.ndarray:
    """Entropy of the softmax over the last axis, in nats.

    >>> round(float(entropy(np.log([0.9, 0.1]))), 4)
    0.3251
    """
    log_probability = logits - energy(logits)[..., None]
    return -(np.exp(log_probability) * log_probability).sum(axis=-1)


def entropy_score(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Most uncertain first: minus the entropy of the softmax of the sample-averaged logits."""
    return -entropy(logits.mean(axis=1))


def energy_score(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Least familiar first: the log-sum-exp over classes, averaged over samples."""
    return energy(logits).mean(axis=1)


def variance_score(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Most stable first: the variance (n-1) over samples of the softmax, summed over classes."""
    return softmax(logits).var(axis=1, ddof=1).sum(axis=-1)


def distance_score(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Hardest first: the sample-averaged logit of the true class."""
    return logits.mean(axis=1)[np.arange(len(labels)), labels]


def first_score(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Data-set order; what CLAP4CLIP's code calls random."""
    return np.zeros(len(labels))


SCORES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "first": first_score,
    "entropy": entropy_score,
    "energy": energy_score,
    "variance": variance_score,
    "distance": distance_score,
}


def smallest_of_each_class(score: np.ndarray, labels: np.ndarray, per_class: int) -> np.ndarray:
    """Rows of the `per_class` smallest scores of every class, classes ascending; equal scores in their order.

    >>> smallest_of_each_class(np.array([3.0, 1.0, 2.0, 0.5]), np.array([0, 0, 0, 1]), 2).tolist()
    [1, 2, 3]
    """
    ranked = np.lexsort((score, labels))  # by class, then by score; stable
    place = np.arange(len(labels)) - np.searchsorted(labels[ranked], labels[ranked], side="left")
    return ranked[place < per_class]


def herding(vectors: np.ndarray, per_class: int) -> np.ndarray:
    """Rows of one class, in the order in which they bring the running mean closest to the class mean (iCaRL).

    vectors: (n, d), normalised to unit length here; their mean is not normalised again.

    The mean of these is (2/3, 1/3); (1, 0) is closest to it, adding (0, 1) gives (1/2, 1/2), adding (1, 0) is worse:

    >>> herding(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 2).tolist()
    [0, 2]
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    squares, tie = (unit**2).sum(axis=1), NEAR_TIE * np.finfo(unit.dtype).eps
    mean, total = unit.mean(axis=0), np.zeros(unit.shape[1])
    chosen: list[int] = []
    for count in range(1, min(per_class, len(unit)) + 1):
        # count^2 ||mean - (total + v) / count||^2 less what all v share: one product in the place of many passes
        quick = squares - 2 * unit @ (count * mean - total)
        quick[chosen] = np.inf
        close = np.flatnonzero(quick <= quick.min() + tie * count)  # rounding must not decide between these
        distance = np.linalg.norm(mean - (total + unit[close]) / count, axis=1)
        chosen.append(int(close[distance.argmin()]))
        total = total + unit[chosen[-1]]
    return np.array(chosen, dtype=int)


def select(rule: str, logits: np.ndarray, labels: np.ndarray, per_class: int) -> np.ndarray:
    """Rows of the exemplars, classes ascending, best first; `rule` is "herding" or one of SCORES.

    Herding works on the sample-averaged logit vectors. logits: (n, samples, classes); labels: (n,) columns of logits.
    """
    logits = np.asarray(logits, dtype=float)
    if rule != "herding":
        return smallest_of_each_class(SCORES[rule](logits, labels), labels, per_class)
    mean = logits.mean(axis=1)  # (n, classes)
    own = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.concatenate([rows[herding(mean[rows], per_class)] for rows in own])


def mix_samples_as_released(logits: np.ndarray, batch_size: int) -> np.ndarray:
    """The mix-up of CLAP4CLIP's released energy and variance selectors, for reproducing runs made with them.

    Inside each batch the code stacks (sample, image) and then reads the stack as (image, sample), so an "image" gets
    predictions of others. `select("energy", mix_samples_as_released(logits, 32), ...)` is what it then chooses.
    """
    mixed = []
    for start in range(0, len(logits), batch_size):
        batch = logits[start : start + batch_size]  # (b, samples, classes)
        mixed.append(batch.transpose(1, 0, 2).reshape(batch.shape))
    return np.concatenate(mixed)
