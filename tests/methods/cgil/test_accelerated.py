"""CGIL's steps as graphs end exactly as plain ones: what a graph reads and where its results lie is right."""

import dataclasses

import pytest
import torch

from bench.clip.acceleration import accelerated
from methods.bounds.joint_prompts import JointPrompts
from methods.cgil.cgil import CGIL
from tests.methods.cgil.test_cgil import DRAWS, QUICK, stream  # noqa: F401  (a fixture)
from tests.methods.teaching import teach
from tests.recorded_graphs import recorded_on_the_cpu  # noqa: F401  (a fixture)


@pytest.mark.parametrize("change", [{}, {"generator": "diffusion"}, {"freeze_past": True}, {"context": "generated"}], ids=str)
def test_learned_by_graphs_as_plainly(tiny, stream, recorded_on_the_cpu, change):  # noqa: F811
    settings = dataclasses.replace(QUICK, vae_batch=8, alignment_epochs=2, alignment_batch=30, **change)
    states = {}
    for by in ("none", "graphs"):
        with accelerated(by) as at_work:
            method = teach(CGIL(settings, tiny.backbone, stream.scenario, DRAWS), *stream.tasks)
        states[by] = method.state_dict()
    assert at_work.calls > len(recorded_on_the_cpu) > 4  # generators and prompts of two tasks, and their last batches
    for name, value in states["none"].items():
        assert torch.equal(states["graphs"][name], value), name


def test_prompts_of_real_embeddings_are_aligned_by_graphs(tiny, stream, recorded_on_the_cpu):  # noqa: F811
    states = []
    for by in ("none", "graphs"):
        with accelerated(by):
            settings = JointPrompts.Settings(alignment_epochs=2, alignment_batch=16)
            method = JointPrompts(settings, tiny.backbone, stream.scenario, DRAWS)
            states.append(teach(method, stream.joined()).state_dict())
    assert recorded_on_the_cpu
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())
