"""Multinomial logistic regression with an L2 penalty, for one strength after another, on the device of the features.

With inputs x_i (d,) of n samples, labels y_i among K classes and inverse strength C, the minimum over W (K, d) and b (K,) of

    F = 1/n sum_i -log softmax(W x_i + b)[y_i] + 1/(2 C n) |W|^2

which is scikit-learn's `LogisticRegression`. For two classes that has one vector, W_1 - W_0, and penalises it: twice the penalty
above, here as well. SciPy's L-BFGS-B goes down, from the solution for the strength before; losses and gradients are torch's, in
double precision and so many rows at a time that a million of samples fit.

scikit-learn stops where no entry of the gradient is above 1e-4, however flat F is there: for weak penalties far from the minimum.
So that steps are of one size in all directions, the descent goes in coordinates in which the Hessian at its start is about I:

    Hessian  about  G x A + 1/(C n) I,   G = 1/n sum diag(p_i) - p_i p_i^T (K, K),   A = weighted scatter of the inputs (d, d)

with p_i the softmax of sample i, weights 1 - |p_i|^2, and x the Kronecker product, whose eigenvectors are those of G and of A.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize

ENTRIES = 1 << 22  # of the logits that are held at a time
TOLERANCE = 1e-5  # of the gradient in the coordinates of the descent: logits are then within some hundredths of the minimum's
ROUGHLY = 1e-4  # for accuracies alone, to choose by
LEAST = 1e-9  # of an eigenvalue of G that a bias is divided by: one is 0, for all biases may move together


class Solution(NamedTuple):
    weights: torch.Tensor  # W (K, d)
    biases: torch.Tensor  # b (K,)

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.biases, inputs, self.weights.T)


class _Coordinates(NamedTuple):
    """Where W = Vg (scale * U) Va^T and b = Vg (bias_scale * u) - W mean, for the numbers [U u] (K, d + 1) that L-BFGS moves."""

    of_classes: torch.Tensor  # Vg (K, K), eigenvectors of G
    of_inputs: torch.Tensor  # Va (d, d), eigenvectors of A
    mean: torch.Tensor  # (d,) that the scatter is taken from
    scale: torch.Tensor  # (K, d)
    bias_scale: torch.Tensor  # (K,)

    def solution(self, numbers: torch.Tensor) -> Solution:
        weights = self.of_classes @ (self.scale * numbers[:, :-1]) @ self.of_inputs.T
        return Solution(weights, self.of_classes @ (self.bias_scale * numbers[:, -1]) - weights @ self.mean)

    def numbers(self, solution: Solution) -> torch.Tensor:
        weights = self.of_classes.T @ solution.weights @ self.of_inputs / self.scale
        biases = self.of_classes.T @ (solution.biases + solution.weights @ self.mean) / self.bias_scale
        return torch.cat([weights, biases.unsqueeze(1)], dim=1)

    def gradient(self, of_weights: torch.Tensor, of_biases: torch.Tensor) -> torch.Tensor:
        """Of the numbers, from those of W and b."""
        centred = of_weights - of_biases.outer(self.mean)
        weights = self.of_classes.T @ centred @ self.of_inputs * self.scale
        return torch.cat([weights, (self.of_classes.T @ of_biases * self.bias_scale).unsqueeze(1)], dim=1)


class LogisticRegression:
    """Of fixed samples: inputs (n, d) in double precision and labels (n,) in 0 .. K - 1, each of which occurs."""

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor, max_iter: int):
        self.inputs, self.labels, self.max_iter = inputs, labels, max_iter
        self.n_classes = int(labels.max()) + 1

    def start(self) -> Solution:
        return Solution(self.inputs.new_zeros(self.n_classes, self.inputs.shape[1]), self.inputs.new_zeros(self.n_classes))

    def solve(self, strength: float, start: Solution, tolerance: float = TOLERANCE) -> Solution:
        """The minimum for C = strength, or where `max_iter` iterations from `start` have led."""
        penalty = (2 if self.n_classes == 2 else 1) / (strength * len(self.inputs))
        coordinates = self._coordinates(start, penalty)

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            numbers = torch.from_numpy(flat).view(self.n_classes, -1).to(self.inputs)
            solution = coordinates.solution(numbers)
            value, of_weights, of_biases = self._mean_loss(solution)
            value = value + penalty / 2 * solution.weights.square().sum()
            gradient = coordinates.gradient(of_weights + penalty * solution.weights, of_biases)
            return value.item(), gradient.flatten().cpu().numpy()

        options = {
            "maxiter": self.max_iter, "maxfun": 50 * self.max_iter, "maxls": 50, "gtol": tolerance,
            "ftol": 64 * np.finfo(float).eps,
        }  # fmt: skip
        first = coordinates.numbers(start).flatten().cpu().numpy()
        found = minimize(loss, first, jac=True, method="L-BFGS-B", options=options)
        return coordinates.solution(torch.from_numpy(found.x).view(self.n_classes, -1).to(self.inputs))

    def _portions(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rows = max(1, ENTRIES // self.n_classes)
        return zip(self.inputs.split(rows), self.labels.split(rows))

    def _mean_loss(self, solution: Solution) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mean cross-entropy, and its gradients of W and b."""
        value = self.inputs.new_zeros(())
        of_weights, of_biases = torch.zeros_like(solution.weights), torch.zeros_like(solution.biases)
        for x, y in self._portions():
            logs = solution.logits(x).log_softmax(dim=1)
            own = y.unsqueeze(1)
            value -= logs.gather(1, own).sum()
            residuals = logs.exp_()
            residuals.scatter_add_(1, own, torch.full_like(own, -1, dtype=residuals.dtype))
            of_weights.addmm_(residuals.T, x)
            of_biases += residuals.sum(dim=0)
        n = len(self.inputs)
        return value / n, of_weights / n, of_biases / n

    def _coordinates(self, at: Solution, penalty: float) -> _Coordinates:
        """Those in which the Hessian at this solution is about I."""
        n, d = self.inputs.shape
        total, sums, scatter = self.inputs.new_zeros(()), self.inputs.new_zeros(d), self.inputs.new_zeros(d, d)
        of_classes = self.inputs.new_zeros(self.n_classes, self.n_classes)
        for x, _ in self._portions():
            p = at.logits(x).softmax(dim=1)
            weights = 1 - p.square().sum(dim=1)
            weighted = x * weights.unsqueeze(1)
            total += weights.sum()
            sums += weighted.sum(dim=0)
            scatter.addmm_(weighted.T, x)
            of_classes.addmm_(p.T, p, alpha=-1)
            of_classes.diagonal().add_(p.sum(dim=0))
        total = total.clamp_min(torch.finfo(total.dtype).tiny)  # 0 where every sample is certain
        mean = sums / total
        spread, of_inputs = torch.linalg.eigh(scatter / total - mean.outer(mean))
        curvature, of_classes = torch.linalg.eigh(of_classes / n)
        scale = (curvature.clamp_min(0).outer(spread.clamp_min(0)) + penalty).rsqrt()
        return _Coordinates(of_classes, of_inputs, mean, scale, curvature.clamp_min(LEAST).rsqrt())
