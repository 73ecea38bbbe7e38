"""One small diffusion model per class, all classes of a task trained as one batched model.

Noise level t = 1 .. T mixes a standardised embedding x with noise e:

    x_t = a_t x + b_t e,     a_t = cos(pi t / 2 T),  b_t = sin(pi t / 2 T)          (cosine schedule, nothing but noise at T)
    e   = e1 * e2,           e1, e2 ~ N(0, 1), dimension by dimension               in training; in sampling e ~ N(0, 1)

A network predicts x from (x_t, t). Over a batch of B images, with t uniform and d the width of x,

    L = 1/B sum_i max(1, log(a_t / b_t)) |net(x_t, t) - x|^2 / d

Sampling: x_T ~ N(0, 1); for t = T .. 1: x^ = net(x_t, t), then x_{t-1} = a_{t-1} x^ + b_{t-1} e with new noise e; the last x^
is the sample. Training on a product of two normals is what the authors' code does: it has the right variance, but not
the distribution that sampling starts from.

    network     h = silu(W_in x), then `hidden` times h = silu(W_k h + s(t)), then W_out h
    s(t)        W_2 silu(W_1 p(t)), with p(t) the usual sines and cosines of t

Every class takes the same number of steps, so a row of the weights ends as if its class had been trained alone; classes with
fewer images than others in a batch are padded, and padding has no weight in the loss.
"""

import functools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from bench import Draws
from bench.clip.acceleration import compilable, replayed
from bench.system import progress
from methods.cgil.stacked import Check, ModelsOfClasses, RowAdam, destandardise, layers_with_gradients, linear, unstack

WEIGHT_DECAY = 1e-2
CHECK_EVERY = 100  # steps between two looks at the loss: each look makes a GPU wait


class Denoiser(torch.nn.Module):
    """The layers of one class, at PyTorch's default initialisation; training runs on stacked copies of them."""

    def __init__(self, d: int, width: int, hidden: int):
        super().__init__()
        self.inward = torch.nn.Linear(d, width)
        self.hidden = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(hidden))
        self.outward = torch.nn.Linear(width, d)
        self.time = torch.nn.ModuleList([torch.nn.Linear(width, width), torch.nn.Linear(width, width)])


class DiffusionModels(ModelsOfClasses):
    """The generators of the classes learned so far: the weights of their networks and per-dimension statistics."""

    signal: torch.Tensor  # a_1 .. a_T
    noise: torch.Tensor  # b_1 .. b_T
    loss_weights: torch.Tensor  # max(1, log(a_t / b_t))
    positions: torch.Tensor  # p(1) .. p(T)
    networks: torch.Tensor  # (classes, P)

    def __init__(self, d: int, width: int, hidden: int, levels: int, iterations: int, lr: float, batch: int):
        super().__init__(d)
        self.sizes = (d, width, hidden)
        self.levels, self.iterations, self.lr, self.batch = levels, iterations, lr, batch
        with torch.device("meta"):
            network = Denoiser(*self.sizes)
        self.shapes = [p.shape for p in network.parameters()]
        angle = torch.arange(1, levels + 1) / levels * math.pi / 2
        self.register_buffer("signal", angle.cos().abs(), persistent=False)
        self.register_buffer("noise", angle.sin(), persistent=False)
        self.register_buffer("loss_weights", (self.signal / self.noise).log().clamp_min(1), persistent=False)
        self.register_buffer("positions", level_positions(levels, width), persistent=False)
        self.register_buffer("networks", torch.zeros(0, sum(map(math.prod, self.shapes))))

    def new_network(self, c: int, draws: Draws) -> Denoiser:
        with draws.initialising("diffusion", c):
            return Denoiser(*self.sizes)

    def keep(self, weights: torch.Tensor) -> None:
        self.networks = torch.cat([self.networks, weights])

    def train_rows(
        self, weights: torch.Tensor, classes: Sequence[int], features: Sequence[torch.Tensor], draws: Draws, check: Check
    ) -> None:
        device = weights.device
        x = pad_sequence(list(features), batch_first=True)  # (C, n, d) with n the largest class
        each = torch.arange(len(classes), device=device).unsqueeze(1)
        adam = RowAdam(weights, self.shapes, WEIGHT_DECAY)
        gradients_of = replayed(functools.partial(self.gradients, weights))
        batches = [self.batches(c, len(own), draws) for c, own in zip(classes, features)]
        total = torch.zeros((), device=device)
        progress.trains("diffusion", self.iterations)
        for step in range(self.iterations):
            drawn = [next(batch) for batch in batches]  # rows, levels and noise of every class
            count = torch.tensor([len(rows) for rows, _, _ in drawn])
            mask = (torch.arange(int(count.max())) < count.unsqueeze(1)).to(device)  # (C, B)
            rows, levels, noise = (pad_sequence(list(part), batch_first=True).to(device) for part in zip(*drawn))
            gradients, loss = gradients_of(x[each, rows], levels, noise, mask)
            adam.step(gradients, self.lr)
            total += loss
            progress.step(loss)
            if (step + 1) % CHECK_EVERY == 0 or step + 1 == self.iterations:
                check(total, f"diffusion fit, step {step + 1}")

    def batches(self, c: int, n: int, draws: Draws) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """For ever: rows (b,), levels less one (b,) and noise (b, d) of the next batch of class c's n images."""
        epoch = 0
        while True:
            rows = draws.permutation(n, "diffusion order", c, epoch)
            levels = draws.integers(self.levels, (n,), "diffusion level", c, epoch)
            noise = draws.normal((2, n, self.sizes[0]), "diffusion noise", c, epoch).prod(dim=0)
            yield from zip(rows.split(self.batch), levels.split(self.batch), noise.split(self.batch))
            epoch += 1

    @torch.enable_grad()
    def gradients(
        self, weights: torch.Tensor, x: torch.Tensor, levels: torch.Tensor, noise: torch.Tensor, mask: torch.Tensor
    ) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        """Each layer's gradients (C, *shape) of the classes' own losses, and their sum.

        x is (C, B, d), levels and mask are (C, B).
        """
        layers = layers_with_gradients(weights, self.shapes)
        noisy = self.signal[levels].unsqueeze(-1) * x + self.noise[levels].unsqueeze(-1) * noise
        loss = batch_loss(layers, self.positions, noisy, x, levels, self.loss_weights[levels], mask)
        return torch.autograd.grad(loss, layers), loss.detach()

    def denoise(self, layers: Sequence[torch.Tensor], x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """What each class's network, layers (C, *shape), makes of x (C, B, d) at levels, less one, (C, B) or (C, 1)."""
        return denoised(layers, self.positions, x, levels)

    @torch.no_grad()
    def sample(self, n: int, draws: Draws, *purpose: object) -> torch.Tensor:
        """(classes, n, d) new raw embeddings of every class learned so far."""
        device, shape = self.networks.device, (len(self.networks), n, self.sizes[0])
        x = draws.normal(shape, *purpose).to(device)
        for level in reversed(range(self.levels)):
            x = self.denoise(unstack(self.networks, self.shapes), x, torch.full((shape[0], 1), level, device=device))
            if level > 0:
                noise = draws.normal(shape, *purpose, "noise", level).to(device)
                x = self.signal[level - 1] * x + self.noise[level - 1] * noise
        return destandardise(x, self.statistics)


def denoised(
    layers: Sequence[torch.Tensor], positions: torch.Tensor, x: torch.Tensor, levels: torch.Tensor
) -> torch.Tensor:
    """`DiffusionModels.denoise`, with p(1) .. p(T) (T, width)."""
    w_in, b_in, *hidden, w_out, b_out, w_1, b_1, w_2, b_2 = layers
    positions = positions.expand(len(x), -1, -1)  # (C, T, width)
    shift = linear(F.silu(linear(positions, w_1, b_1)), w_2, b_2)  # s(1) .. s(T)
    shift = shift[torch.arange(len(x), device=x.device).unsqueeze(1), levels]  # (C, B, width)
    h = F.silu(linear(x, w_in, b_in))
    for weight, bias in zip(hidden[::2], hidden[1::2]):
        h = F.silu(linear(h, weight, bias) + shift)
    return linear(h, w_out, b_out)


@compilable
def batch_loss(
    layers: Sequence[torch.Tensor],
    positions: torch.Tensor,
    noisy: torch.Tensor,
    x: torch.Tensor,
    levels: torch.Tensor,
    loss_weights: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """The sum of the classes' losses on a batch x (C, B, d) and what noise has made of it: rows do not interact."""
    error = (denoised(layers, positions, noisy, levels) - x).square().mean(dim=-1)  # (C, B)
    return ((loss_weights * error * mask).sum(dim=1) / mask.sum(dim=1)).sum()


def level_positions(levels: int, width: int) -> torch.Tensor:
    """(levels, width) p(1) .. p(levels): sines, then cosines, of t times frequencies from 1 down to 1 / levels.

    >>> level_positions(4, 5)[0]
    tensor([0.8415, 0.2474, 0.5403, 0.9689, 0.0000])
    """
    half = width // 2
    frequencies = torch.exp(-math.log(levels) / (half - 1) * torch.arange(half))
    angle = torch.arange(1, levels + 1).unsqueeze(1) * frequencies
    return F.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, width % 2))
