"""Compiled functions and replayed graphs: only where a run asks for them, and with the numbers of the plain path."""

import copy

import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock

from bench.clip import acceleration
from bench.clip.acceleration import accelerated, compilable, of_this_run, replayed, replaying
from bench.clip.image_tower import blocks
from tests.recorded_graphs import recorded_on_the_cpu  # noqa: F401  (a fixture)

APART = 1e-5  # of the largest entry: another order of summation in float32


@pytest.fixture
def compiler(monkeypatch):
    """Stands in for torch.compile: the functions that were handed over, called as they are."""
    asked = []
    monkeypatch.setattr(acceleration, "_compiled", lambda function: asked.append(function) or function)
    return asked


def test_compiled_in_a_run_that_asks_for_it_where_gradients_are_wanted(compiler):
    def double(x):
        return 2 * x

    function, x = compilable(double), torch.ones(2)
    for by in ("none", "graphs"):
        with accelerated(by):
            function(x)
    with accelerated("compile"), torch.no_grad():
        function(x)
    assert not compiler
    with accelerated("compile") as at_work:
        assert function(x).tolist() == [2, 2] and of_this_run() is at_work
        assert at_work.calls == 1 and compiler == [double]
    assert of_this_run() is None


def test_blocks_of_copies_are_compiled_too_and_only_meanwhile(compiler, small_backbone):
    plain, x = ResidualAttentionBlock.forward, torch.randn(2, 3, 32)
    with accelerated("compile") as at_work:
        block = copy.deepcopy(small_backbone).clip.visual.transformer.resblocks[0]
        wanted = plain(block, x)
        assert torch.equal(block(x), wanted) and at_work.calls == 1
        small_backbone.encode_text(["a cat"])  # without gradients
        assert at_work.calls == 1
    assert ResidualAttentionBlock.forward is plain
    with pytest.raises(ZeroDivisionError), accelerated("compile"):
        raise ZeroDivisionError
    assert ResidualAttentionBlock.forward is plain and of_this_run() is None


def test_only_what_is_recorded_is_replayed(recorded_on_the_cpu):  # noqa: F811
    """Weights are read where they lie; shapes are recorded once; a loss outlives the next call, a large result does not."""
    weight = torch.tensor([1.0, 2.0])

    def work(x):
        return [weight * x], (weight * x).sum()

    assert replayed(work) is work and not replaying()
    with accelerated("graphs") as at_work:
        function = replayed(work)
        (first,), loss = function(torch.ones(2))
        assert first.tolist() == [1, 2] and float(loss) == 3
        weight += 1
        (second,), other = function(torch.full((2,), 10.0))
        assert second.tolist() == [20, 30] and float(other) == 50
        assert first.data_ptr() == second.data_ptr() and float(loss) == 3
        function(torch.ones(1))
        assert recorded_on_the_cpu == [(2,), (1,)] and at_work.calls == 3 and replaying()


def test_beyond_so_many_shapes_the_plain_function_is_called(recorded_on_the_cpu, monkeypatch):  # noqa: F811
    monkeypatch.setattr(acceleration, "SHAPES", 2)
    with accelerated("graphs") as at_work:
        function = replayed(lambda x: (x + 1, x.sum()))
        assert [function(torch.ones(n))[0].tolist() for n in (1, 2, 3)] == [[2], [2, 2], [2, 2, 2]]
    assert recorded_on_the_cpu == [(1,), (2,)] and at_work.calls == 2


@pytest.mark.slow
def test_a_compiled_block_has_the_plain_ones_output_and_gradients(small_backbone):
    """With torch's compiler and that of C++."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for by in ("none", "compile"):
        block = copy.deepcopy(blocks(small_backbone.clip.visual)[0]).requires_grad_()
        for n in (2, 5):  # the second shape is compiled for any
            x = torch.randn(n, 17, 32, generator=generator.manual_seed(n)).requires_grad_()
            with accelerated(by):
                output = block(x)
            found[by, n] = [output.detach(), *torch.autograd.grad(output.square().sum(), [x, *block.parameters()])]
    for n in (2, 5):
        for ours, wanted in zip(found["compile", n], found["none", n]):
            assert float((ours - wanted).abs().max()) <= APART * float(wanted.abs().max())


def test_compiled_code_is_for_the_vectors_that_torch_computes_with(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, options: asked.append(options) or function)
    for capability in ("AVX512", "AVX2", "DEFAULT", "another"):
        acceleration._compiled.cache_clear()
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        acceleration._compiled(len)
    acceleration._compiled.cache_clear()
    assert asked == [None, {"cpp.simdlen": 256}, {"cpp.simdlen": 1}, None]
