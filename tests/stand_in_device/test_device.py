"""The stand-in device computes as the CPU does, and refuses what a GPU refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from tests.stand_in_device import crossings
from tests.stand_in_device.device import stand_in_device


@pytest.fixture
def device():
    with stand_in_device() as device:
        yield device


def small_network() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.GroupNorm(2, 8), torch.nn.GELU(), torch.nn.Flatten(), torch.nn.Linear(32, 5)
        )


def trained(device) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Weights after three steps, and the logits then."""
    network = small_network().to(device)
    images = torch.linspace(-1, 1, 6 * 3 * 4 * 4).view(6, 3, 4, 4).to(device)
    labels = torch.tensor([0, 1, 2, 3, 4, 0], device=device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimiser.step()
    with torch.inference_mode():
        return [weight.detach().cpu() for weight in network.parameters()], network(images).cpu()


def test_a_network_trains_to_the_numbers_of_the_cpu(device):
    ours, own_logits = trained(device)
    weights, logits = trained("cpu")
    torch.testing.assert_close(own_logits, logits)
    for weight, wanted in zip(ours, weights):
        torch.testing.assert_close(weight, wanted)


def test_views_share_their_memory_and_copies_do_not(device):
    x = torch.zeros(3, 4, device=device)
    x[1].add_(1)
    x[:, 2] = 5
    x[torch.tensor([False, False, True], device=device)] = 7
    other = copy.deepcopy(torch.nn.Parameter(x))
    x.zero_()
    assert other.tolist() == [[0, 0, 5, 0], [1, 1, 5, 1], [7, 7, 7, 7]]
    assert isinstance(other, torch.nn.Parameter) and other.device == device
    module = torch.nn.BatchNorm1d(4).to(device)  # with buffers
    assert copy.deepcopy(module).running_var.tolist() == [1] * 4


def test_attention_and_activations_that_are_computed_again(device):
    def gradient(place) -> torch.Tensor:
        q = torch.linspace(0, 1, 24).view(1, 2, 3, 4).to(place).requires_grad_()
        attended = checkpoint(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), q, use_reentrant=False)
        attended.square().sum().backward()
        return q.grad.cpu()

    torch.testing.assert_close(gradient(device), gradient("cpu"))


HOST, PLACES = torch.ones(3), torch.tensor([0])
REFUSED = {
    "a sum": lambda x: x + HOST,
    "a product": lambda x: HOST @ x,
    "a row": lambda x: torch.cat([x, HOST]),
    "a single number that is not element-wise": lambda x: torch.stack([x[0], HOST[0]]),
    "a choice": lambda x: torch.where(x > 0, x, HOST),
    "places in what the host has": lambda x: HOST[x.long()],
    "places of the host": lambda x: x.index_select(0, PLACES),
    "labels": lambda x: F.cross_entropy(x[None], PLACES),
    "a layer": lambda x: torch.nn.Linear(3, 2)(x),
    "a generator of the host": lambda x: torch.randn(3, device=x.device, generator=torch.Generator()),
    "an array of numpy": lambda x: x.numpy(),
    "in place": lambda x: HOST.clone().add_(x),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_gpu_refuses(what, device):
    with pytest.raises((RuntimeError, TypeError), match=r"device|generator of standin"):
        REFUSED[what](torch.ones(3, device=device))


def test_what_a_gpu_allows(device):
    x = torch.arange(3.0, device=device)
    assert (x * torch.tensor(2.0)).tolist() == [0, 2, 4]  # a single number of the host
    assert x[torch.tensor([2, 0])].tolist() == [2, 0]  # places, which are copied
    x[torch.tensor([1])] = torch.tensor(9.0)
    assert torch.zeros(3).copy_(x).tolist() == [0, 9, 2]


def test_each_crossing_is_counted_where_it_is_caused(device):
    x = torch.arange(3.0, device=device)

    def kinds(action) -> list[str]:
        with crossings.counted() as found:
            action()
        assert all(crossing.place.startswith("tests/stand_in_device/test_device.py:") for crossing in found)
        return [crossing.kind for crossing in found]

    assert kinds(lambda: x.sum().square()) == []
    assert kinds(lambda: x.sum().item()) == ["read"]
    assert kinds(lambda: bool(x.any())) == ["read"]
    assert kinds(lambda: x.tolist()) == ["read"]
    assert kinds(lambda: x.cpu()) == ["read"]
    assert kinds(lambda: torch.equal(x, x)) == ["read"]
    assert kinds(lambda: x.nonzero()) == ["shape"]
    assert kinds(lambda: x[x > 1]) == ["shape"]
    assert kinds(lambda: x.unique()) == ["shape"]
    assert kinds(lambda: HOST.to(device)) == ["upload"]
    assert kinds(lambda: torch.tensor([1.0], device=device)) == ["upload"]
    assert kinds(lambda: x[[0, 1]]) == ["upload"]
    assert kinds(lambda: x[PLACES]) == ["upload"]
