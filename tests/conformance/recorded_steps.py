"""What every update of a stored run with AdamW computed: rates, losses, gradients, weights."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F


class Steps:
    """Notes the updates of one model under the names of its tensors, with a prefix, while `monkeypatch` holds.

    Gradients are those that AdamW gets, or where a method changes them first (see `before`) those from before that.
    """

    def __init__(self, model: torch.nn.Module, prefix: str, gradients: Sequence[str], weights: Sequence[str], monkeypatch):
        self.named = {prefix + name: own for name, own in model.named_parameters()}
        self.gradients, self.weights = gradients, weights
        self.notes: dict[str, list[torch.Tensor]] = {}
        step, cross_entropy = torch.optim.AdamW.step, F.cross_entropy

        def recorded_step(optimiser, *rest):
            (group,) = optimiser.param_groups
            self.note("lr", torch.tensor(group["lr"], dtype=torch.float64))
            if len(self.notes.get("grad_norm", [])) < len(self.notes["lr"]):
                self.note_gradients()
            step(optimiser, *rest)
            for name in self.weights:
                self.note(f"after_step/{name}", self.named[name])

        def recorded_loss(logits, *arguments, **options):
            self.note("logits", logits)
            loss = cross_entropy(logits, *arguments, **options)
            self.note("loss", loss)
            return loss

        monkeypatch.setattr(torch.optim.AdamW, "step", recorded_step)
        monkeypatch.setattr(F, "cross_entropy", recorded_loss)

    def before(self, change: Callable[[], None]) -> Callable[[], None]:
        """A function that changes the gradients, so that they are noted as they were before it."""

        def recorded():
            self.note_gradients()
            change()

        return recorded

    def note_gradients(self) -> None:
        trained = [own for own in self.named.values() if own.requires_grad]
        for name in self.gradients if "grad_norm" not in self.notes else ():
            self.note(f"first_grad/{name}", self.named[name].grad)
        self.note("grad_norm", torch.stack([own.grad.norm() for own in trained]).norm())

    def note(self, name: str, value: torch.Tensor) -> None:
        self.notes.setdefault(name, []).append(value.detach().clone())

    def arrays(self) -> dict[str, torch.Tensor]:
        """One row per update; of the first update alone its logits and gradients."""
        first_logits = self.notes.pop("logits")[0]
        first = {name: values[0] for name, values in self.notes.items() if name.startswith("first_grad/")}
        return {"first_logits": first_logits} | {name: torch.stack(values) for name, values in self.notes.items()} | first


def stored_names(vectors, place: str) -> list[str]:
    """The tensors of which the file has an array below this place."""
    return [name.removeprefix(place) for name in vectors.arrays if name.startswith(place)]
