"""CGIL's auto-encoders: the classes of a task as one batched model, against one after the other in plain PyTorch.

pytest tests/benchmarks/test_vaes_together.py -m "slow or not slow"
"""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import parameters_to_vector

from bench.system.randomness import Draws
from methods.cgil.cgil import CGILSettings
from methods.cgil.stacked import standardisation, standardise
from methods.cgil.vae import VAE, VAEs, warm_restart_rate
from tests.benchmarks.side_by_side import fastest_of

CLASSES, IMAGES, WIDTH = 20, 500, 512
AT_LEAST = {"cuda": 10.0, "cpu": 1.0}
NOISE = 0.1  # two equal amounts of work differ by so much on a busy machine
APART = 1e-3  # of what training has changed: in float32, where the first steps of Adam follow the sign of gradients near zero
SETTINGS = CGILSettings()


def one_after_the_other(
    features: list[torch.Tensor], draws: Draws, sizes: tuple[int, int, int], epochs: int, lr: float, batch: int
) -> torch.Tensor:
    """The decoders (classes, P) after each class has been trained by itself, in the way a paper's code would do it."""
    decoders = []
    for c, x in enumerate(features):
        x = standardise(x, standardisation(x))
        with draws.initialising("vae", c):
            network = VAE(*sizes)
        network.to(x.device)
        optimiser = torch.optim.Adam(network.parameters(), lr=lr)
        for epoch in range(epochs):
            optimiser.param_groups[0]["lr"] = warm_restart_rate(epoch, lr, first_cycle=max(1, epochs // 10))
            order = draws.permutation(len(x), "vae order", c, epoch).to(x.device)
            noise = draws.normal((len(x), sizes[2]), "vae noise", c, epoch).to(x.device)
            for rows, eps in zip(order.split(batch), noise.split(batch)):
                mu, s = network.encoder(x[rows]).chunk(2, dim=-1)
                reconstruction = network.decoder(mu + eps * s.exp())
                # the constant of the likelihood has no gradient
                loss = 0.5 * F.mse_loss(reconstruction, x[rows], reduction="sum") + 0.5 * (s.exp() + mu.square() - 1 - s).sum()
                optimiser.zero_grad()
                (loss / len(rows)).backward()
                optimiser.step()
        decoders.append(parameters_to_vector(network.decoder.parameters()).detach())
    return torch.stack(decoders)


def measured(
    device: torch.device, epochs: int, images: int = IMAGES, classes: int = CLASSES, rounds: int = 2
) -> dict[str, float]:
    """Seconds "one by one" and "together", their ratio, and how far the decoders are apart: of how far training has moved
    them, on average over the weights."""
    draws, sizes = Draws("benchmark", "cgil", 0), (WIDTH, SETTINGS.vae_hidden, SETTINGS.vae_latent)
    features = list(torch.randn(classes, images, WIDTH, generator=torch.Generator().manual_seed(0)).to(device))
    found = {}

    def loop() -> None:
        found["one by one"] = one_after_the_other(features, draws, sizes, epochs, SETTINGS.vae_lr, SETTINGS.vae_batch)

    def together() -> None:
        models = VAEs(*sizes, epochs, SETTINGS.vae_lr, SETTINGS.vae_batch).to(device)
        models.fit(list(range(classes)), features, draws, lambda loss, what: None)
        found["together"] = models.decoders

    taken = fastest_of({"one by one": loop, "together": together}, rounds, device)
    moved = float((found["one by one"] - one_after_the_other(features, draws, sizes, 0, 1.0, 1)).abs().mean())
    apart = float((found["one by one"] - found["together"]).abs().mean()) / moved
    return taken | {"ratio": taken["one by one"] / taken["together"], "difference": apart}


@pytest.mark.slow
def test_on_the_cpu_never_slower():
    """A few epochs; the others are the same work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = measured(torch.device("cpu"), epochs=3)
    finally:
        torch.set_num_threads(threads)
    print(found)
    assert found["difference"] < APART
    assert found["ratio"] >= AT_LEAST["cpu"] - NOISE


def test_both_ways_end_alike():
    """In float64, where rounding has no say, the two ways have the same decoders."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = measured(torch.device("cpu"), epochs=2, images=70, classes=2, rounds=1)
    finally:
        torch.set_default_dtype(usual)
    assert found["difference"] < 1e-9


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: there all classes of a task are trained at once")
def test_on_a_gpu_ten_times_faster():
    found = measured(torch.device("cuda"), epochs=20)
    print(found)
    assert found["difference"] < APART
    assert found["ratio"] >= AT_LEAST["cuda"]
