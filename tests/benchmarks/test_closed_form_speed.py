"""How long the methods without gradients take at their defaults: 100 classes x 50 cached features, 10 tasks, two CPU cores.

Time is that of the processor, so that other work on the machine does not count.

pytest -m slow tests/benchmarks/test_closed_form_speed.py --durations=0
"""

import time
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from bench.streams.stream import Scenario
from bench.system import registry
from bench.system.randomness import Draws

TASKS, CLASSES_PER_TASK, IMAGES, WIDTH, TEST_IMAGES = 10, 10, 50, 512, 10_000
CORES, MINUTES = 2, 6


class Features:
    """A split of cached features."""

    def __init__(self, centres: torch.Tensor, classes: range, seed: int):
        self.labels = torch.tensor(list(classes)).repeat_interleave(IMAGES)
        noise = torch.randn(len(self.labels), WIDTH, generator=torch.Generator().manual_seed(seed))
        self._features = centres[self.labels] + 2 * noise

    def features(self, view: str = "plain", layer: str = "projected") -> torch.Tensor:
        return self._features


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simplecil", "ranpac", "rail-primal", "rail-dual"])
def test_a_hundred_classes_take_minutes(name):
    n_classes = TASKS * CLASSES_PER_TASK
    centres = 2 + torch.randn(n_classes, WIDTH, generator=torch.Generator().manual_seed(0))
    backbone = SimpleNamespace(
        device=torch.device("cpu"),
        embedding_width=WIDTH,
        pooled_width=WIDTH,
        classifier=lambda scenario, classes, template=None: F.normalize(centres, dim=-1)[list(classes)],
    )
    owners = tuple(c // CLASSES_PER_TASK for c in range(n_classes))
    scenario = Scenario("class-incremental", tuple(map(str, range(n_classes))), (("{}",),) * n_classes, owners)
    method_class = registry.load("method", name)
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    try:
        method = method_class(method_class.Settings(), backbone, scenario, Draws("speed", name, 0))
        started = time.process_time()
        for index in range(TASKS):
            classes = range(index * CLASSES_PER_TASK, (index + 1) * CLASSES_PER_TASK)
            train = Features(centres, classes, seed=1 + index)
            method.learn(SimpleNamespace(index=index, name=f"task {index}", classes=tuple(classes), train=train))
            learned = time.process_time()
            for batch in torch.randn(TEST_IMAGES, WIDTH).split(500):
                method.logits(batch, range(classes[-1] + 1))
            print(f"{name} task {index}: {learned - started:.0f} s since the start, scores {time.process_time() - learned:.0f} s")
        test = Features(centres, range(n_classes), seed=99)
        right = method.logits(test.features(), range(n_classes)).argmax(dim=-1) == test.labels
        assert float(right.float().mean()) > 0.9
        assert time.process_time() - started < CORES * MINUTES * 60
    finally:
        torch.set_num_threads(before)
