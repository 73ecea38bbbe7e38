"""How long a table of 100,000 record rows takes: pytest tests/benchmarks."""

import pandas as pd
import pytest

from bench.reports import tables
from bench.system.peak_memory import peak_bytes_of_process
from tests.bench.fake_records import fake_records

ROWS = 100_000


@pytest.mark.parametrize("tasks", [6, 10, 20])
def test_table_of_many_rows(benchmark, tasks):
    """Under 3 seconds and 1 GB is the promise; four methods with many seeds, `tasks` tasks each."""
    some = fake_records(tasks=tasks, seeds=range(5))
    copies = -(-ROWS // len(some))
    records = pd.concat([some.assign(run_id=some["run_id"] + str(k), seed=some["seed"] + 5 * k) for k in range(copies)])
    before = peak_bytes_of_process()
    text = benchmark.pedantic(tables.render, args=(records,), rounds=3)
    assert str(5 * copies) in text
    assert peak_bytes_of_process() - before < 1e9
