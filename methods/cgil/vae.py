"""One small variational auto-encoder per class, all classes of a task trained as one batched model.

    encoder  x -> mu, s         three linear layers, batch norm and LeakyReLU between
    decoder  z -> x^            three linear layers, LeakyReLU between
    z = mu + eps * exp(s)       eps ~ N(0, 1)
    loss = (rec + kl) / B       for a batch of B images
    rec = sum [ (x - x^)^2 / 2 + log(2 pi) / 2 ],   kl = 1/2 sum [ exp(s) + mu^2 - 1 - s ]

The divergence reads exp(s) as a variance while the sampler uses it as a standard deviation. The two do not fit together;
that is what the authors' code does.

Classes keep their own sizes: each has its own number of batches, batch size, batch statistics (masked, padding
never enters them) and count of Adam steps, so a row ends as if its class had been trained alone.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from bench import Draws
from bench.clip.acceleration import compilable, replayed
from bench.system import progress
from methods.cgil.stacked import Check, ModelsOfClasses, RowAdam, destandardise, layers_with_gradients, linear, unstack

SLOPE = 0.2
EPS = 1e-5


class VAE(torch.nn.Module):
    """The layers of one class, at PyTorch's default initialisation; training runs on stacked copies of them."""

    def __init__(self, d: int, hidden: int, latent: int):
        super().__init__()
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(d, hidden),
            torch.nn.BatchNorm1d(hidden),
            torch.nn.LeakyReLU(SLOPE),
            torch.nn.Linear(hidden, hidden),
            torch.nn.BatchNorm1d(hidden),
            torch.nn.LeakyReLU(SLOPE),
            torch.nn.Linear(hidden, 2 * latent),
        )
        self.decoder = torch.nn.Sequential(
            torch.nn.Linear(latent, hidden),
            torch.nn.LeakyReLU(SLOPE),
            torch.nn.Linear(hidden, hidden),
            torch.nn.LeakyReLU(SLOPE),
            torch.nn.Linear(hidden, d),
        )


class VAEs(ModelsOfClasses):
    """The generators of the classes learned so far. Kept after a fit: decoders and per-dimension statistics."""

    decoders: torch.Tensor  # (classes, P_dec)

    def __init__(self, d: int, hidden: int, latent: int, epochs: int, lr: float, batch: int):
        super().__init__(d)
        self.sizes = (d, hidden, latent)
        self.epochs, self.lr, self.batch = epochs, lr, batch
        with torch.device("meta"):
            network = VAE(*self.sizes)
        self.encoder_shapes = [p.shape for p in network.encoder.parameters()]
        self.decoder_shapes = [p.shape for p in network.decoder.parameters()]
        self.register_buffer("decoders", torch.zeros(0, sum(map(math.prod, self.decoder_shapes))))

    def new_network(self, c: int, draws: Draws) -> VAE:
        with draws.initialising("vae", c):
            return VAE(*self.sizes)

    def keep(self, weights: torch.Tensor) -> None:
        self.decoders = torch.cat([self.decoders, weights[:, -self.decoders.shape[1] :]])

    def train_rows(
        self, weights: torch.Tensor, classes: Sequence[int], features: Sequence[torch.Tensor], draws: Draws, check: Check
    ) -> None:
        by_size = sorted(range(len(classes)), key=lambda i: -len(features[i]))  # stable
        rows = weights[by_size]
        classes = [classes[i] for i in by_size]
        ordered = [features[i] for i in by_size]
        device = rows.device
        sizes = torch.tensor([len(x) for x in ordered])  # descending: who still has images is always a prefix
        batches = list(ragged_batches(sizes, self.batch, device))
        x = pad_sequence(ordered, batch_first=True)  # (C, n, d) with n the largest class
        class_index = torch.arange(len(classes), device=device).unsqueeze(1)
        adam = RowAdam(rows, self.encoder_shapes + self.decoder_shapes)
        gradients_of = replayed(lambda x, noise, count, mask: self.gradients(rows[: len(count)], x, noise, count, mask))
        progress.trains("VAE", self.epochs * len(batches), len(batches))
        for epoch in range(self.epochs):
            rate = warm_restart_rate(epoch, self.lr, first_cycle=max(1, self.epochs // 10))
            orders = [draws.permutation(n, "vae order", c, epoch) for c, n in zip(classes, sizes.tolist())]
            shuffled = x[class_index, pad_sequence(orders, batch_first=True).to(device)]  # (C, n, d)
            noises = [draws.normal((n, self.sizes[2]), "vae noise", c, epoch) for c, n in zip(classes, sizes.tolist())]
            noise = pad_sequence(noises, batch_first=True).to(device)  # (C, n, latent)
            total = torch.zeros((), device=device)
            for place, count, mask in batches:
                active = len(count)
                gradients, loss = gradients_of(shuffled[:active, place], noise[:active, place], count, mask)
                adam.step(gradients, rate)
                total += loss
                progress.step(loss)
            check(total, f"VAE fit, epoch {epoch + 1}")
        weights[by_size] = rows

    @torch.enable_grad()
    def gradients(
        self, rows: torch.Tensor, x: torch.Tensor, noise: torch.Tensor, count: torch.Tensor, mask: torch.Tensor
    ) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """Each layer's gradients (C, *shape) of the classes' own losses, and their sum. x is (C, B, d), mask (C, B, 1)."""
        layers = layers_with_gradients(rows, self.encoder_shapes + self.decoder_shapes)
        loss = batch_loss(layers[: len(self.encoder_shapes)], layers[len(self.encoder_shapes) :], x, noise, count, mask)
        return torch.autograd.grad(loss, layers), loss.detach()

    @torch.no_grad()
    def sample(self, n: int, draws: Draws, *purpose: object) -> torch.Tensor:
        """(classes, n, d) new raw embeddings of every class learned so far."""
        z = draws.normal((len(self.decoders), n, self.sizes[2]), *purpose).to(self.decoders.device)
        return destandardise(decode(unstack(self.decoders, self.decoder_shapes), z), self.statistics)


# -- the network, on stacked weights ----------------------------------------------------------------------------


def batch_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, count: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Batch norm with the statistics of each class's real rows: biased variance over `count` (C,) images."""
    count = count.view(-1, 1, 1)
    mean = (x * mask).sum(dim=1, keepdim=True) / count
    variance = ((x - mean).square() * mask).sum(dim=1, keepdim=True) / count
    return (x - mean) * (variance + EPS).rsqrt() * weight.unsqueeze(1) + bias.unsqueeze(1)


def encode(
    layers: Sequence[torch.Tensor], x: torch.Tensor, count: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """mu and s (C, B, latent) of images x (C, B, d)."""
    w1, b1, gamma1, beta1, w2, b2, gamma2, beta2, w3, b3 = layers
    x = F.leaky_relu(batch_norm(linear(x, w1, b1), gamma1, beta1, count, mask), SLOPE)
    x = F.leaky_relu(batch_norm(linear(x, w2, b2), gamma2, beta2, count, mask), SLOPE)
    # padding gets mu = s = 0: exp(s) of a row that its batch statistics do not cover could overflow
    mu, s = (linear(x, w3, b3) * mask).chunk(2, dim=-1)
    return mu, s


def decode(layers: Sequence[torch.Tensor], z: torch.Tensor) -> torch.Tensor:
    """x^ (C, B, d) of codes z (C, B, latent)."""
    w1, b1, w2, b2, w3, b3 = layers
    z = F.leaky_relu(linear(z, w1, b1), SLOPE)
    z = F.leaky_relu(linear(z, w2, b2), SLOPE)
    return linear(z, w3, b3)


@compilable
def batch_loss(
    encoder: Sequence[torch.Tensor],
    decoder: Sequence[torch.Tensor],
    x: torch.Tensor,
    noise: torch.Tensor,
    count: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """The sum of the classes' losses on a batch x (C, B, d): rows do not interact, each gets the gradient of its own term."""
    mu, s = encode(encoder, x, count, mask)  # (C, B, latent)
    reconstruction = decode(decoder, mu + noise * s.exp())  # (C, B, d)
    rec, kl = losses(x, reconstruction, mu, s, mask)  # (C,)
    return ((rec + kl) / count).sum()


def losses(
    x: torch.Tensor, reconstruction: torch.Tensor, mu: torch.Tensor, s: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """rec and kl of each class, (C,), summed over its batch."""
    rec = 0.5 * (x - reconstruction).square() + 0.5 * math.log(2 * math.pi)
    kl = 0.5 * (s.exp() + mu.square() - 1 - s)
    return (rec * mask).sum(dim=(1, 2)), (kl * mask).sum(dim=(1, 2))


# -- optimisation -----------------------------------------------------------------------------------------------


def ragged_batches(
    sizes: torch.Tensor, batch: int, device: torch.device
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """The batches of an epoch over classes of descending sizes: (places, images of each class, mask (C, B, 1)).

    Each lists only the classes that take part. The last batch of a class may be smaller than that of others; one of a
    single image is left out, for it has no batch statistics.
    """
    for start in range(0, int(sizes[0]), batch):
        count = (sizes - start).clamp(max=batch)
        count = count[count >= 2]
        if len(count):
            width = int(count[0])
            mask = (torch.arange(width) < count.unsqueeze(1)).float().unsqueeze(-1)
            yield slice(start, start + width), count.to(device), mask.to(device)


def warm_restart_rate(epoch: int, peak: float, first_cycle: int) -> float:
    """Cosine from `peak` to 0 that starts again after each cycle; every cycle is twice as long as the one before.

    >>> [round(warm_restart_rate(epoch, 1.0, first_cycle=2), 3) for epoch in range(7)]
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """
    cycle = first_cycle
    while epoch >= cycle:
        epoch, cycle = epoch - cycle, 2 * cycle
    return peak * (1 + math.cos(math.pi * epoch / cycle)) / 2
