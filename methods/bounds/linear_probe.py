"""Linear probe of the frozen image encoder: how much of the stream its features hold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from bench import Method, Task, setting
from methods.bounds.logistic_regression import ROUGHLY, LogisticRegression, Solution


@dataclass(frozen=True)
class LinearProbeSettings:
    """After CLIP's protocol, with a coarser sweep of the L2 strength."""

    strengths: tuple[float, ...] = setting(
        (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
        "values of C (inverse L2 strength) to choose from",
        "CLIP: 96 in 1e-6..1e6",
    )
    held_out: float = setting(0.1, "fraction of every class's training images on which C is chosen", "harness")
    max_iter: int = setting(1000, "L-BFGS iterations at most", "CLIP")


class LinearProbe(Method):
    """Linear probe: logistic regression on the frozen image features of all tasks, learned at once.

    Paper: the linear-probe evaluation of "Learning Transferable Visual Models From Natural Language Supervision",
    A. Radford et al., ICML 2021, arXiv 2103.00020.

    Trained: one weight vector w_c (d,) and one bias b_c for each class. Frozen: the image encoder f; text is not used.
    With u_i = norm(f(x_i)) (d,), labels y_i and L2 strength 1/C, L-BFGS finds the minimum of

        1/2 sum_c |w_c|^2 + C sum_i -log softmax_c(w_c . u_i + b_c)[y_i]

    C is chosen on a tenth of the training images, drawn class by class (a class with one image keeps it for training); of
    equally good values the smallest, that is the most regularised, wins. Then everything is fitted again on all training
    images. Test images play no part. Values of C are taken in ascending order, each fit from the one before, to the minimum
    that scikit-learn comes to with a small tolerance (bounds/logistic_regression.py). In task-incremental scenarios each task
    gets its own probe, with its own C.

    Features are scaled to unit length: CLIP's features are made to be compared by angle, their length says little about
    the class, and with unit length one sweep of C suits every backbone.

    Not comparable to `joint`, although both see all tasks at once. `joint` moves the towers, and keeps CLIP's text
    classifier; the probe moves nothing but a head without text. It is the upper reference of methods that keep the
    image encoder frozen, it does not bound methods that train it, and it cannot score a class that it has no image of.

    Deviations: d-dimensional features after the projection, which every method here shares, instead of those before it;
    fewer values of C. With two classes the penalty is scikit-learn's, of the difference w_1 - w_0: twice the one above.
    """

    Settings = LinearProbeSettings
    settings: LinearProbeSettings
    paper = (
        '"Learning Transferable Visual Models From Natural Language Supervision", '
        "Radford et al., ICML 2021, arXiv 2103.00020"
    )
    needs = ("features",)
    trains = "one linear layer on frozen image features, on all tasks at once; no text"
    conformance = "no vectors: compared with scikit-learn on the same features"
    version = "2"  # fitted to the minimum; scikit-learn stopped before it
    zero_shot = False
    joint = True

    weights: torch.Tensor  # (N, d)
    biases: torch.Tensor  # (N,)
    learned: torch.Tensor  # (N,)

    def prepare(self) -> None:
        n_classes = len(self.scenario.class_names)
        self.register_buffer("weights", torch.zeros(n_classes, self.backbone.embedding_width))
        self.register_buffer("biases", torch.zeros(n_classes))
        self.register_buffer("learned", torch.zeros(n_classes, dtype=torch.bool))

    def learn(self, task: Task) -> None:
        features = F.normalize(task.train.features().double(), dim=-1)  # (n, d)
        labels = task.train.labels.numpy()  # (n,)
        for classes in self.groups(task):
            rows = np.isin(labels, classes)
            weights, biases = self.fit(features[torch.from_numpy(rows).to(features.device)], labels[rows])
            self.weights[classes] = weights.to(self.weights)
            self.biases[classes] = biases.to(self.biases)
            self.learned[classes] = True

    def groups(self, task: Task) -> list[list[int]]:
        """Classes that compete with each other: all, or task by task."""
        if not self.scenario.task_known:
            return [list(task.classes)]
        owner = self.scenario.task_of_class
        return [[c for c in task.classes if owner[c] == index] for index in sorted({owner[c] for c in task.classes})]

    def fit(self, features: torch.Tensor, labels: np.ndarray) -> Solution:
        """Weights (K, d) and biases (K,) of the classes in `labels`, in ascending order."""
        columns = torch.from_numpy(np.unique(labels, return_inverse=True)[1]).to(features.device)
        strength, nearby = self.choose_strength(features, columns)
        regression = LogisticRegression(features, columns, self.settings.max_iter)
        return regression.solve(strength, nearby or regression.start())

    def choose_strength(self, features: torch.Tensor, labels: torch.Tensor) -> tuple[float, Solution | None]:
        """The C with the best accuracy on held-out training images, with what was fitted to the others by it."""
        strengths = sorted(self.settings.strengths)
        held_out = torch.from_numpy(self.held_out_rows(labels.cpu().numpy())).to(labels.device)
        if not held_out.any():  # one image per class: nothing to choose by
            return strengths[len(strengths) // 2], None
        regression = LogisticRegression(features[~held_out], labels[~held_out], self.settings.max_iter)
        solution, found = regression.start(), []
        for strength in strengths:
            solution = regression.solve(strength, solution, ROUGHLY)
            right = solution.logits(features[held_out]).argmax(dim=1) == labels[held_out]
            found.append((int(right.sum()), strength, solution))
        _, strength, solution = max(found, key=lambda one: one[0])  # the first of equals
        return strength, solution

    def held_out_rows(self, labels: np.ndarray) -> np.ndarray:
        """(n,) True for the rows on which C is chosen: the same fraction of every class, at least one image of two."""
        held_out = np.zeros(len(labels), dtype=bool)
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            n_held_out = min(max(1, round(self.settings.held_out * len(rows))), len(rows) - 1)
            order = self.draws.permutation(len(rows), "held out", int(label)).numpy()
            held_out[rows[order[:n_held_out]]] = True
        return held_out

    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        wanted = torch.as_tensor(list(classes), device=batch.device)
        if not bool(self.learned[wanted].all()):
            unknown = [self.scenario.class_names[c] for c in classes if not self.learned[c]]
            raise ValueError(f"a linear probe scores only classes that it was trained on; not {', '.join(unknown[:5])}")
        return F.normalize(batch, dim=-1) @ self.weights[wanted].T + self.biases[wanted]
