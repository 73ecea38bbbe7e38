"""CI-Transfer and its relatives, from stored logits to the number."""

import json

import numpy as np
import pytest

from bench.results import metrics, run_data
from tests.conformance.stored_logits import accuracy_matrices

FIELDS = {  # field of expected.json -> metric of the harness
    "ci_transfer": "ci_transfer",
    "ci_transfer_task_masked": "ci_transfer_task",
    "ci_transfer_unseen_only": "ci_transfer_future",
    "column_mean_transfer": "column_mean_transfer",
    "flat_mean_transfer": "flat_mean_transfer",
    "image_pooled_transfer": "image_pooled_transfer",
    "last": "last",
    "last_task_masked": "last_task",
    "avg_incremental": "avg",
}


def _fields(logits: np.ndarray, labels: np.ndarray, classes_per_task: list[int]) -> dict:
    """Every field of one case, as fractions."""
    matrices, n = accuracy_matrices(logits, labels, classes_per_task)
    run = run_data.RunData(run_data.CLASS_INCREMENTAL, matrices, n)
    values = metrics.of_run(run, FIELDS.values())
    learned = np.tril(np.ones((len(n), len(n)), dtype=bool))
    return {
        "acc_all": np.where(learned, matrices["seen"], matrices["all"]),
        "acc_task_masked": matrices["task"],
        "acc_unseen_only": matrices["future"],
        **{field: values[name] for field, name in FIELDS.items()},
    }


@pytest.mark.vectors("ci-transfer", methods=())
def test_every_field_of_every_case(vectors):
    params = vectors.params
    cases = json.loads((vectors.path.parent / params["expected_file"]).read_text())
    assert [case[params["case_field"]] for case in cases] == params["case_ids"]
    unit = {"percent": 100, "fraction": 1}[params["unit"]]
    for case in cases:
        number = case[params["case_field"]]
        actual = _fields(vectors[f"logits_{number}"], vectors[f"labels_{number}"], case["classes_per_task"])
        for field, limit in params["expected_tolerances"].items():
            expected = np.array(case[field], dtype=float)  # null becomes NaN
            found = unit * np.array(actual[field], dtype=float)
            vectors.compare(f"{field} of case {number}", found, expected, limit)
    assert vectors.ratios, f"{vectors.path.parent}: nothing was compared"
    wrong = {name: ratio for name, ratio in vectors.ratios.items() if not ratio <= 1}
    assert not wrong, f"{vectors.path.parent}: error / limit too large: {wrong}"
