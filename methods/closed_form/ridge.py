"""Ridge regression onto one-hot targets whose samples and classes arrive task by task.

    W = argmin ||H W - Y||^2 + lambda ||W||^2 = (H^T H + lambda I)^-1 H^T Y                          (m, C)

over all samples so far: H (n, m) = expand(inputs (n, d)), Y (n, C) one-hot. Three ways to the same W, which differ in what
they keep and in their cost; all in float64, whatever the inputs are, for lambda is small beside H^T H:

    GramRidge         keeps H^T H (m, m) and H^T Y (m, C); a solution costs m^3 / 3. For n up to m / 2 the same in n rows
    RecursiveRidge    keeps the inverse (m, m) and W; a sample costs 4 m^2, there is nothing to solve. For n up to m / 2 as above
    SampleRidge       keeps the inputs (n, d) and alpha (n, C); b samples more cost 2 n^2 b + n b (m + C): for n well below m.
                      Also for kernels
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from methods.closed_form.few_samples import FewSamples
from methods.closed_form.triangle import keep_triangle, mirror

Expand = Callable[[torch.Tensor], torch.Tensor]
ROWS = 1024  # samples expanded at a time


def one_hot(labels: torch.Tensor, n_classes: int) -> torch.Tensor:
    """(n, C) float64; a label beyond the last class is an error."""
    return torch.nn.functional.one_hot(labels, n_classes).double()


def widen(matrix: torch.Tensor, columns: int) -> torch.Tensor:
    """The matrix with zero columns appended for new classes."""
    return torch.nn.functional.pad(matrix, (0, columns - matrix.shape[1]))


def solve_shifted(symmetric: torch.Tensor, shift: float, right: torch.Tensor) -> torch.Tensor:
    """(symmetric + shift I)^-1 right, for a positive semi-definite matrix."""
    shifted = symmetric.clone()
    shifted.diagonal().add_(shift)
    return torch.cholesky_solve(right, torch.linalg.cholesky(shifted))


def _portions(
    expand: Expand, inputs: torch.Tensor, labels: torch.Tensor, rows: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for x, y in zip(inputs.split(rows), labels.split(rows)):
        yield expand(x).double(), y


class GramRidge(torch.nn.Module):
    """The sums H^T H and H^T Y over all samples: adding is exact in any order, and any lambda can be solved for.

    Up to m / 2 samples they are held in as many rows (few_samples.py), which takes less time and memory. Of H^T H the state has
    the lower triangle, and no more of it is ever read.
    """

    gram: torch.Tensor
    cross: torch.Tensor

    def __init__(self, expand: Expand):
        super().__init__()
        self.expand = expand
        self.few = FewSamples()
        self.register_buffer("gram", torch.zeros(0, 0, dtype=torch.float64))  # (m, m), empty while samples are few
        self.register_buffer("cross", torch.zeros(0, 0, dtype=torch.float64))  # (m, C)
        keep_triangle(self, "gram", "cross")

    @torch.no_grad()
    def add(self, inputs: torch.Tensor, labels: torch.Tensor, n_classes: int) -> None:
        """Add inputs (n, d) with labels (n,) among the n_classes classes so far."""
        columns = self.expand(inputs[:1]).shape[1]
        if not len(self.gram) and 2 * (len(self.few.root) + len(inputs)) <= columns:
            h = torch.cat([h for h, _ in _portions(self.expand, inputs, labels, ROWS)])
            self.few.add(h, one_hot(labels, n_classes))
            return
        if len(self.few.root):
            self.gram, self.cross = self.few.sums()
            self.few.clear()
        for h, y in _portions(self.expand, inputs, labels, ROWS):
            if not len(self.gram):
                self.gram, self.cross = h.new_zeros(h.shape[1], h.shape[1]), h.new_zeros(h.shape[1], 0)
            self.cross = widen(self.cross, n_classes)
            self.gram.addmm_(h.T, h)
            self.cross.addmm_(h.T, one_hot(y, n_classes))

    @torch.no_grad()
    def solve(self, ridge: float) -> torch.Tensor:
        """W (m, C)."""
        return self.few.solve(ridge) if len(self.few.root) else solve_shifted(self.gram, ridge, self.cross)

    def sums(self) -> tuple[torch.Tensor, torch.Tensor]:
        """H^T H (m, m) and H^T Y (m, C), however they are held."""
        return self.few.sums() if len(self.few.root) else (self.gram, self.cross)


class RecursiveRidge(torch.nn.Module):
    """Recursive least squares, `rows` samples H (b, m) with targets Y (b, C) at a time:

        R <- R - R H^T (I + H R H^T)^-1 H R,     W <- W + R H^T (Y - H W) with the new R,     R = I / lambda at first

    Up to m / 2 samples are held in as many rows F instead (few_samples.py), from which the recursion starts with

        R = (I - F^T (F F^T + lambda I)^-1 F) / lambda

    R is symmetric, and is made so to the last bit after every addition: the state has its lower triangle.
    """

    inverse: torch.Tensor
    weights: torch.Tensor

    def __init__(self, expand: Expand, ridge: float, rows: int):
        super().__init__()
        self.expand, self.ridge, self.rows = expand, ridge, rows
        self.few = FewSamples()
        self.register_buffer("inverse", torch.zeros(0, 0, dtype=torch.float64))  # R (m, m), empty while samples are few
        self.register_buffer("weights", torch.zeros(0, 0, dtype=torch.float64))  # W (m, C)
        keep_triangle(self, "inverse", "weights")

    @torch.no_grad()
    def add(self, inputs: torch.Tensor, labels: torch.Tensor, n_classes: int) -> None:
        """Add inputs (n, d) with labels (n,) among the n_classes classes so far."""
        columns = self.expand(inputs[:1]).shape[1]
        if not len(self.inverse) and 2 * (len(self.few.root) + len(inputs)) <= columns:
            h = torch.cat([h for h, _ in _portions(self.expand, inputs, labels, ROWS)])
            self.few.add(h, one_hot(labels, n_classes))
            self.weights = self.few.solve(self.ridge)
            return
        if not len(self.inverse):
            self.inverse = self.inverse_so_far(columns)
            self.few.clear()
        if not len(self.weights):
            self.weights = self.inverse.new_zeros(columns, 0)
        for h, y in _portions(self.expand, inputs, labels, self.rows):
            self.weights = widen(self.weights, n_classes)
            projected = h @ self.inverse  # H R (b, m)
            gain = solve_shifted(projected @ h.T, 1.0, projected)  # (I + H R H^T)^-1 H R (b, m): H times the new R
            self.inverse.addmm_(projected.T, gain, alpha=-1)
            self.weights.addmm_(gain.T, one_hot(y, n_classes) - h @ self.weights)
        mirror(self.inverse)

    def inverse_so_far(self, columns: int) -> torch.Tensor:
        """R (m, m), however it is held."""
        if len(self.inverse):
            return self.inverse
        identity, root = torch.eye(columns, dtype=torch.float64, device=self.weights.device), self.few.root
        if len(root):
            identity.addmm_(root.T, solve_shifted(self.few.products, self.ridge, root), alpha=-1)
        return identity.div_(self.ridge)


class SampleRidge(torch.nn.Module):
    """The same in the space of the samples, which are kept: alpha = (K + lambda I)^-1 Y with K = kernel(inputs, inputs).

    With the kernel expand(x) . expand(x'), H^T alpha is W. With any other kernel, kernel(x, inputs) alpha is the prediction.

    Nothing is solved anew when b samples with targets Y_b come: the Cholesky factor L of K + lambda I gets b rows more, and

        E = L^-1 K_nb,    L_b L_b^T = K_bb + lambda I - E^T E             L <- [L, 0; E^T, L_b]
        alpha_b = (L_b L_b^T)^-1 (Y_b - K_bn alpha),                      alpha <- [alpha - L^-T E alpha_b; alpha_b]

    L is not part of the state, which would be as large as all pairs of samples: it is computed again, in the same steps.
    """

    inputs: torch.Tensor
    alpha: torch.Tensor
    additions: torch.Tensor
    factor: torch.Tensor

    def __init__(self, d: int, kernel: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], ridge: float):
        super().__init__()
        self.kernel, self.ridge = kernel, ridge
        self.register_buffer("inputs", torch.zeros(0, d))  # (n, d)
        self.register_buffer("alpha", torch.zeros(0, 0, dtype=torch.float64))  # (n, C)
        self.register_buffer("additions", torch.zeros(0, dtype=torch.long))  # how many samples came at a time
        self.register_buffer("factor", torch.zeros(0, 0, dtype=torch.float64), persistent=False)  # L (n, n)

    @property
    def bytes(self) -> int:
        """Bytes of the kept inputs, for `Method.exemplar_bytes`."""
        return self.inputs.numel() * self.inputs.element_size()

    @torch.no_grad()
    def add(self, inputs: torch.Tensor, labels: torch.Tensor, n_classes: int) -> None:
        """Keep inputs (b, d) with labels (b,) among the n_classes classes so far."""
        if len(self.factor) < len(self.inputs):  # the run was resumed
            parts = self.inputs.split(self.additions.tolist())
            for place, part in enumerate(parts):
                self._extend_factor(self.kernel(torch.cat([part[:0], *parts[:place]]), part), part)
        before, alpha, pairs = self.factor, widen(self.alpha, n_classes), self.kernel(self.inputs, inputs)
        half, corner = self._extend_factor(pairs, inputs)
        new = torch.cholesky_solve(one_hot(labels, n_classes) - pairs.T @ alpha, corner)
        # the triangle is solved for the few new samples, not for the many classes
        change = torch.linalg.solve_triangular(before.mT, half, upper=True) @ new
        self.inputs, self.alpha = torch.cat([self.inputs, inputs]), torch.cat([alpha - change, new])
        self.additions = torch.cat([self.additions, self.additions.new_tensor([len(inputs)])])

    def _extend_factor(self, pairs: torch.Tensor, new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append rows for the samples `new` (b, d), whose kernel with those before is `pairs` K_nb: E (n, b) and L_b (b, b)."""
        half = torch.linalg.solve_triangular(self.factor, pairs, upper=False)
        rest = self.kernel(new, new) - half.T @ half
        rest.diagonal().add_(self.ridge)
        corner = torch.linalg.cholesky(rest)
        n = len(pairs)
        wider = pairs.new_zeros(n + len(new), n + len(new))
        wider[:n, :n], wider[n:, :n], wider[n:, n:] = self.factor, half.T, corner
        self.factor = wider
        return half, corner


@torch.no_grad()
def held_out_errors(
    expand: Expand, fit: tuple[torch.Tensor, torch.Tensor], held_out: tuple[torch.Tensor, torch.Tensor], n_classes: int,
    ridges: Sequence[float],
) -> torch.Tensor:  # fmt: skip
    """For each lambda, the mean squared error of H W on held-out samples, W being fitted to the others alone.

    `fit` and `held_out` are inputs (n, d) with labels (n,); the mean is over all entries of the residual (n, n_classes).
    One eigendecomposition serves all lambdas, of H^T H or (fewer samples than columns) of H H^T:

        H W = H_v V (S + lambda)^-1 V^T H^T Y,   H^T H = V S V^T;        = H_v H^T U (S + lambda)^-1 U^T Y,   H H^T = U S U^T
    """
    targets, h_held_out = one_hot(held_out[1], n_classes), expand(held_out[0]).double()
    if len(fit[0]) < h_held_out.shape[1]:
        h = expand(fit[0]).double()
        eigenvalues, vectors = torch.linalg.eigh(h @ h.T)
        left, right = h_held_out @ h.T @ vectors, vectors.T @ one_hot(fit[1], n_classes)
    else:
        sums = GramRidge(expand)
        sums.add(*fit, n_classes)
        eigenvalues, vectors = torch.linalg.eigh(sums.gram)
        left, right = h_held_out @ vectors, vectors.T @ sums.cross
    eigenvalues = eigenvalues.clamp_min(0)  # rounding can make them negative
    errors = [(left / (eigenvalues + ridge) @ right - targets).square().mean() for ridge in ridges]
    return torch.stack(errors)
