"""From logits to what the metrics need: which classes compete, who wins, how sure the model is. Plain numpy.

The same rules as bench.evaluation, for logits that were stored elsewhere.
"""

import numpy as np

CANDIDATES = ("seen", "task", "future", "all")


def competing_classes(candidates: str, after_task: int, eval_task: int, classes_per_task: np.ndarray) -> np.ndarray:
    """Positions of the classes that compete when `eval_task` is scored after `after_task` (both 0-based).

    >>> competing_classes("seen", 1, 0, [3, 2, 2]).tolist()
    [0, 1, 2, 3, 4]
    >>> competing_classes("future", 0, 2, [3, 2, 2]).tolist()
    [3, 4, 5, 6]
    >>> competing_classes("task", 0, 2, [3, 2, 2]).tolist()
    [5, 6]
    """
    bounds = np.concatenate([[0], np.cumsum(classes_per_task)])
    first, end = {
        "seen": (0, bounds[after_task + 1]),
        "future": (bounds[after_task + 1], bounds[-1]),
        "task": (bounds[eval_task], bounds[eval_task + 1]),
        "all": (0, bounds[-1]),
    }[candidates]
    return np.arange(first, end)


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


def per_sample(logits: np.ndarray, classes: np.ndarray) -> dict[str, np.ndarray]:
    """What is kept of each image: logits (n, len(classes)) -> prediction, confidence, entropy, energy, each (n,).

    The first of equal maxima wins. Computed in double, kept in single precision, as in samples.safetensors.
    """
    logits = np.asarray(logits, dtype=float)
    return {
        "prediction": np.asarray(classes)[logits.argmax(axis=-1)].astype(np.int32),
        "confidence": softmax(logits).max(axis=-1).astype(np.float32),
        "entropy": entropy(logits).astype(np.float32),
        "energy": energy(logits).astype(np.float32),
    }


def accuracy_matrices(
    logits: np.ndarray, labels: np.ndarray, classes_per_task: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Accuracy matrices, and test images per task, of a model whose logits over all classes were stored.

    logits: (T, images, N), block t = the model after task t; a list of blocks (images, classes seen so far) also does,
    if it scores learned tasks only. labels: (images,) positions in learning order. Returns ({candidates: (T, T)}, (T,));
    "seen" is filled for learned tasks, "all" and "future" for future ones, "task" for both; the rest is NaN.

    >>> logits = np.array([[[2.0, 1.0], [3.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])  # two tasks of one class, two images
    >>> matrices, n = accuracy_matrices(logits, np.array([0, 1]), [1, 1])
    >>> matrices["seen"].tolist(), matrices["all"].tolist(), n.tolist()
    ([[1.0, nan], [0.0, 1.0]], [[nan, 0.0], [nan, nan]], [1, 1])
    """
    tasks = len(classes_per_task)
    owner = np.repeat(np.arange(tasks), classes_per_task)[np.asarray(labels)]  # (images,) task of each image
    n = np.bincount(owner, minlength=tasks)
    if not n.all():
        raise ValueError(f"task {int(np.flatnonzero(n == 0)[0]) + 1} has no test images: its accuracy is undefined")
    matrices = {candidates: np.full((tasks, tasks), np.nan) for candidates in CANDIDATES}
    for after in range(tasks):
        block = np.asarray(logits[after])
        for evaluated in range(tasks):
            rows = owner == evaluated
            for candidates in ("seen", "task") if evaluated <= after else ("all", "future", "task"):
                classes = competing_classes(candidates, after, evaluated, classes_per_task)
                if classes[-1] < block.shape[1]:
                    winners = classes[block[rows][:, classes].argmax(axis=1)]
                    matrices[candidates][after, evaluated] = (winners == np.asarray(labels)[rows]).mean()
    return matrices, n
