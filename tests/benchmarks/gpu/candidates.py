"""Speed-ups that may be adopted: each beside the plain path, with a look at whether both come to the same."""

from tests.benchmarks.gpu.steps import Conditions, Step


def steps(conditions: Conditions) -> list[Step]:
    return []
