"""Ridge regression while samples are fewer than columns: what H^T H and H^T Y hold, in as many rows as there are samples.

Of each addition H_t (b, m) with targets Y_t (b, C), H_t = Q_t R_t with Q_t (b, b) orthogonal is kept as R_t (b, m) and Q_t^T Y_t
(b, C). One below the other they are R (n, m) and T (n, C):

    H^T H = R^T R,    H^T Y = R^T T,    (H^T H + lambda I)^-1 H^T Y = R^T (R R^T + lambda I)^-1 T

R says no more of single samples than the sums over their addition do. The products R R^T (n, n) are kept as well, so that b
samples after n cost 2 n b m, and a solution n^3 / 3.
"""

import torch


class FewSamples(torch.nn.Module):
    """R, T and R R^T, all empty at first."""

    root: torch.Tensor
    targets: torch.Tensor
    products: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("root", "targets", "products"):
            self.register_buffer(name, torch.zeros(0, 0, dtype=torch.float64))

    def add(self, h: torch.Tensor, targets: torch.Tensor) -> None:
        """Samples H_t (b, m), b no more than m, with targets (b, C), which may be for more classes than before."""
        rotation, triangle = torch.linalg.qr(h)
        n, b = len(self.root), len(h)
        products = triangle.new_zeros(n + b, n + b)
        products[n:, n:] = triangle @ triangle.T
        if n:
            products[:n, :n] = self.products
            products[n:, :n] = triangle @ self.root.T
            products[:n, n:] = products[n:, :n].T
        self.root = torch.cat([self.root, triangle]) if n else triangle
        before = torch.nn.functional.pad(self.targets, (0, targets.shape[1] - self.targets.shape[1])).to(targets)
        self.targets, self.products = torch.cat([before, rotation.T @ targets]), products

    def solve(self, ridge: float) -> torch.Tensor:
        """W (m, C)."""
        shifted = self.products.clone()
        shifted.diagonal().add_(ridge)
        return self.root.T @ torch.cholesky_solve(self.targets, torch.linalg.cholesky(shifted))

    def sums(self) -> tuple[torch.Tensor, torch.Tensor]:
        """H^T H (m, m) and H^T Y (m, C)."""
        return self.root.T @ self.root, self.root.T @ self.targets

    def clear(self) -> None:
        for name, held in self.named_buffers():
            setattr(self, name, held.new_zeros(0, 0))
