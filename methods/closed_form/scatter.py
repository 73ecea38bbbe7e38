"""A sum of outer products S = Z^T Z over rows Z (n, D) that arrive in parts, and the inverse root of S / (N - 1) + ridge I.

For n up to D / 2 the rows R of few_samples.py are held, R^T R = S, and the smaller side is decomposed: with R R^T / (N - 1) =
U diag(s) U^T and f(v) = max(v, floor)^-1/2, a row vector x times the inverse root is

    f(ridge) x + x R^T U diag((f(s + ridge) - f(ridge)) / s) U^T R / (N - 1)

Otherwise S (D, D) is, of which the lower triangle alone is read and stored.
"""

from collections.abc import Callable

import torch

from methods.closed_form.few_samples import FewSamples
from methods.closed_form.triangle import keep_triangle

LEAST = 1e-15  # of the largest eigenvalue: below it a direction is that of rounding


class Scatter(torch.nn.Module):
    """S, empty at first."""

    square: torch.Tensor
    columns: torch.Tensor

    def __init__(self, width: int):
        super().__init__()
        self.few = FewSamples()
        self.register_buffer("square", torch.zeros(0, 0, dtype=torch.float64))  # S (D, D), empty while rows are few
        self.register_buffer("columns", torch.zeros(width, 0, dtype=torch.float64), persistent=False)  # D of them
        keep_triangle(self, "square", "columns")

    @property
    def is_few(self) -> bool:
        return not len(self.square)

    @torch.no_grad()
    def add(self, rows: torch.Tensor) -> None:
        """Rows (b, D)."""
        width = len(self.columns)
        if self.is_few and 2 * (len(self.few.root) + len(rows)) <= width:
            self.few.add(rows, rows.new_zeros(len(rows), 0))
            return
        if self.is_few:
            self.square = self.whole()
            self.few.clear()
        self.square.addmm_(rows.T, rows)

    def whole(self) -> torch.Tensor:
        """S (D, D)."""
        root, width = self.few.root, len(self.columns)
        if not self.is_few:
            return self.square.tril() + self.square.tril(-1).T
        return root.T @ root if len(root) else self.columns.new_zeros(width, width)

    @torch.no_grad()
    def inverse_root(self, n: torch.Tensor, ridge: float, floor: float) -> Callable[[torch.Tensor], torch.Tensor]:
        """From x (b, D) to x (S / (n - 1) + ridge I)^-1/2, with eigenvalues of at least `floor`."""
        if not self.is_few:
            variances, vectors = torch.linalg.eigh(self.square / (n - 1) + torch.eye(len(self.square)).to(self.square) * ridge)
            root = (vectors * variances.clamp_min(floor).rsqrt()) @ vectors.T
            return lambda x: x @ root
        rows, base = self.few.root, max(ridge, floor) ** -0.5
        if not len(rows):
            return lambda x: base * x
        s, turns = torch.linalg.eigh(self.few.products / (n - 1))
        some = s > LEAST * s[-1]
        change = torch.where(some, ((s + ridge).clamp_min(floor).rsqrt() - base) / torch.where(some, s, 1.0), 0.0) / (n - 1)
        return lambda x: base * x + (x @ rows.T @ turns * change) @ turns.T @ rows
