"""DDAS: one autoencoder per domain says which domain an image comes from (MoE-Adapters' distribution-discriminative selector).

With s = sigmoid(phi(x)) (F,) of some frozen features phi, autoencoder j of width H:

    r_j(s)  = sigmoid(V_j relu(W_j s + b_j) + c_j)           W_j: F -> H, V_j: H -> F
    error_j = mean over the F features of (r_j(s) - s)^2

An autoencoder is trained on the images of its domain to lower its error; the domain of an image is that of the lowest one.
"""

import math
from collections.abc import Callable

import torch

from bench import Draws
from bench.system import progress
from methods.shared.batches import training_batches
from methods.shared.modules import ModulesOf

DECAY_EPOCHS, DECAY = 10, 0.1


class DomainAutoencoder(torch.nn.Module):
    """One narrow autoencoder, at PyTorch's default initialisation."""

    def __init__(self, features: int, hidden: int):
        super().__init__()
        self.encoder = torch.nn.Linear(features, hidden)
        self.decoder = torch.nn.Linear(hidden, features)

    def errors(self, s: torch.Tensor) -> torch.Tensor:
        """(n,) of s (n, F)."""
        return (self.decoder(self.encoder(s).relu()).sigmoid() - s).square().mean(dim=-1)


class DomainAutoencoders(torch.nn.Module):
    """The autoencoders of the domains met so far, in the order of their arrival."""

    def __init__(self, features: int, hidden: int, draws: Draws):
        super().__init__()
        self.sizes = (features, hidden)
        self.draws = draws
        self.domains = ModulesOf[DomainAutoencoder]()

    def __len__(self) -> int:
        return len(self.domains)

    def grow(self, *purpose: object) -> None:
        """Add an untrained autoencoder."""
        with self.draws.initialising("domain autoencoder", *purpose):
            self.domains.append(DomainAutoencoder(*self.sizes))

    def fit(
        self,
        index: int,
        n: int,
        features: Callable[[torch.Tensor], torch.Tensor],
        iterations: int,
        rate: float,
        weight_decay: float,
        batch_size: int,
        budget: int | None,
        check: Callable[[torch.Tensor, str], None],
    ) -> None:
        """Train autoencoder `index` on `n` images, of which `features` gives phi (b, F) for chosen rows.

        Adam; the rate falls to a tenth every 10 epochs.
        """
        domain = self.domains[index]
        optimiser = torch.optim.Adam(domain.parameters(), lr=rate, weight_decay=weight_decay)
        epochs = math.ceil(iterations / math.ceil(n / batch_size))
        total = torch.zeros((), device=domain.encoder.weight.device)
        batches = training_batches(
            self.draws, images=n, batch_size=batch_size, epochs=epochs, budget=budget,
            purpose=("domain autoencoder", index),
        )  # fmt: skip
        for step, epoch, rows in batches:
            if step == iterations:
                break
            optimiser.param_groups[0]["lr"] = rate * DECAY ** (epoch // DECAY_EPOCHS)
            loss = domain.errors(features(rows).sigmoid()).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.detach()
            progress.step(loss.detach())
        optimiser.zero_grad()
        check(total, "domain autoencoder")

    @torch.no_grad()
    def errors(self, features: torch.Tensor) -> torch.Tensor:
        """(n, domains) reconstruction errors of features phi (n, F)."""
        s = features.sigmoid()
        return torch.stack([domain.errors(s) for domain in self.domains], dim=1)
