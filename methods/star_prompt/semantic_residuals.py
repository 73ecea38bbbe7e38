"""What an image adds to the attention values of each block: the residual of the class that it resembles (STAR-Prompt)."""

from typing import Literal

import torch
import torch.nn.functional as F

from bench import Draws

SCORE_SCALE = 5.0
EPSILON = 1e-12

ModulationGradient = Literal["all", "winner"]


class SemanticResiduals(torch.nn.Module):
    """For each of L blocks, a modulation A_lc (E,) of the query and a residual P_lc (D,) per class.

        score_lbc = 5 cos(u_b * softmax(A_lc), k_c)          u (b, E) raw CLIP embedding, k (n, E) unit keys
        s_lb      = score_lbw P_lw,                          w = argmax_c score_lbc over all classes seen

    `confident` False: s_lb = P_lw. `gradient` says which scores send a gradient to A: "winner" is the derivative of the above;
    "all" treats every class as if its score had entered the sum, so classes that did not win are trained too. The
    residuals themselves get a gradient where they are used. No gradient reaches the classes before `past`.
    """

    def __init__(
        self, layers: int, classes: int, query_width: int, width: int, confident: bool, gradient: ModulationGradient, draws: Draws
    ):
        super().__init__()
        self.confident = confident
        self.gradient = gradient
        modulations = [orthogonal(classes, query_width, draws, "modulations", layer) for layer in range(layers)]
        # a third of an orthogonal (classes, 3 D) matrix: its rows are neither of unit length nor orthogonal, as released
        residuals = [orthogonal(classes, 3 * width, draws, "residuals", layer)[:, :width] for layer in range(layers)]
        self.modulations = torch.nn.Parameter(torch.stack(modulations))  # A (L, N, E)
        self.residuals = torch.nn.Parameter(torch.stack(residuals))  # P (L, N, D)

    def scores(self, query: torch.Tensor, keys: torch.Tensor, past: int) -> torch.Tensor:
        """(L, b, n) of queries (b, E) and keys (n, E); cos(u * w, k) = u (w * k)^T / sqrt(u^2 (w^2)^T) needs no (b, n, E)."""
        weights = self._seen(self.modulations, len(keys), past).softmax(dim=-1)  # (L, n, E)
        products = query @ (weights * keys).transpose(1, 2)
        lengths = (query.square() @ weights.square().transpose(1, 2)).clamp_min(EPSILON**2).sqrt()
        return SCORE_SCALE * products / lengths

    def forward(self, query: torch.Tensor, keys: torch.Tensor, past: int) -> torch.Tensor:
        """(L, b, D) residuals of images, among the n classes that `keys` (n, E) belong to."""
        scores = self.scores(query, keys, past)
        winner = F.one_hot(scores.argmax(dim=-1), len(keys)).to(scores)
        if not self.confident:
            kept = winner
        elif self.gradient == "winner":
            kept = scores * winner
        else:
            kept = scores + (scores * winner - scores).detach()
        return kept @ self._seen(self.residuals, len(keys), past)

    def penalty(self, n: int, past: int) -> torch.Tensor:
        """Mean over blocks of mean_new (|P_new|^2 - 1)^2 + mean_new,old (P_new . P_old)^2; 0 where there is no older class."""
        if past == 0:
            return self.residuals.new_zeros(())
        new, old = self.residuals[:, past:n], self.residuals[:, :past].detach()
        length = (new.square().sum(dim=-1) - 1).square().mean(dim=-1)  # (L,)
        overlap = (new @ old.transpose(1, 2)).square().mean(dim=(1, 2))  # (L,)
        return (length + overlap).mean()

    @staticmethod
    def _seen(parameter: torch.Tensor, n: int, past: int) -> torch.Tensor:
        return torch.cat([parameter[:, :past].detach(), parameter[:, past:n]], dim=1)


def orthogonal(rows: int, columns: int, draws: Draws, *purpose: object) -> torch.Tensor:
    """(rows, columns) with orthonormal rows, or orthonormal columns where there are more rows than columns."""
    with draws.initialising(*purpose):
        return torch.nn.init.orthogonal_(torch.empty(rows, columns))
