"""Task vectors: the change that training made to a model's weights, as one flat vector, and back.

What is done with changes (the larger of two, a sign that most agree on) is done to every number alike, so one vector serves;
only where a mean over each tensor is asked for do the tensors inside it matter.
"""

from collections.abc import Mapping

import torch


class WeightLayout:
    """How the trained tensors of a model lie in one vector (d,): one after another, in the model's order.

    rows: of these tensors only some rows (n,) can change, such as those of the tokens that occur in prompts; the vector holds no
    others. A token table is a sixth of a ViT-B/16 CLIP and most of a small one.
    """

    def __init__(self, shapes: Mapping[str, torch.Size], rows: Mapping[str, torch.Tensor] | None = None):
        self.shapes = dict(shapes)  # of whole tensors
        self.rows = dict(rows or {})
        self.held = {name: (len(self.rows[name]), *shape[1:]) if name in self.rows else shape for name, shape in shapes.items()}
        self.lengths = [torch.Size(shape).numel() for shape in self.held.values()]

    @classmethod
    def of(cls, model: torch.nn.Module, rows: Mapping[str, torch.Tensor] | None = None) -> "WeightLayout":
        """Of all weights that are trained."""
        shapes = {name: weights.shape for name, weights in model.named_parameters() if weights.requires_grad}
        return cls(shapes, {name: own for name, own in (rows or {}).items() if name in shapes})

    @property
    def size(self) -> int:
        """d, the length of a vector."""
        return sum(self.lengths)

    @torch.no_grad()
    def read(self, model: torch.nn.Module) -> torch.Tensor:
        """(d,) a copy of the weights of this model, or of another one of the same kind."""
        weights = dict(model.named_parameters())
        parts = [weights[name][self.rows[name]] if name in self.rows else weights[name] for name in self.shapes]
        return torch.cat([part.flatten() for part in parts])

    @torch.no_grad()
    def write(self, model: torch.nn.Module, vector: torch.Tensor) -> None:
        """Give the model these weights (d,). Rows that the vector does not hold stay as they are."""
        weights = dict(model.named_parameters())
        for name, part in self.parts(vector).items():
            weights[name][self.rows.get(name, ...)] = part

    def parts(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        """The vector (d,) tensor by tensor, in their shapes; only the rows that it holds."""
        pieces = vector.split(self.lengths)
        return {name: piece.view(self.held[name]) for name, piece in zip(self.shapes, pieces)}

    def tensors(self, change: torch.Tensor) -> dict[str, torch.Tensor]:
        """A change (d,) tensor by tensor, whole ones: 0 in rows that cannot change."""
        whole = self.parts(change)
        for name, rows in self.rows.items():
            whole[name] = change.new_zeros(self.shapes[name]).index_copy(0, rows, whole[name])
        return whole

    def total_of_means(self, change: torch.Tensor) -> torch.Tensor:
        """() sum over all tensors of the mean magnitude in it, so that a bias weighs as much as a token table; in double."""
        means = [
            part.abs().sum(dtype=torch.float64) / self.shapes[name].numel() for name, part in self.parts(change).items()
        ]
        return torch.stack(means).sum()
