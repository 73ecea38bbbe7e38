"""What a run states about its method's memory, and the column that shows it."""

import csv
import json
from types import SimpleNamespace

import torch

from bench.reports import costs
from bench.runs import runner
from tests.results_folder import write_run


def test_kept_state_is_every_number_that_a_checkpoint_holds():
    """Class statistics and random projections are buffers: no parameter and no exemplar counts them."""
    method = torch.nn.Module()
    method.exemplar_bytes = lambda: 0
    method.weights = torch.nn.Parameter(torch.zeros(3, 2))
    method.register_buffer("factors", torch.zeros(4, 5, 5, dtype=torch.float64))
    method.register_buffer("made_again", torch.zeros(100), persistent=False)
    backbone = SimpleNamespace(device=torch.device("cpu"), frozen_parameters=6)
    assert runner._cost(method, backbone)["state_bytes"] == 3 * 2 * 4 + 4 * 5 * 5 * 8


def test_a_run_from_before_the_column_leaves_it_empty(tmp_path):
    accuracies = [[0.9, 0.5], [0.8, 0.9]]
    shown = write_run(tmp_path, accuracies, method="coop")
    older = write_run(tmp_path, accuracies, method="cgil") / "manifest.json"
    manifest = json.loads(older.read_text())
    del manifest["cost"]["state_bytes"]
    older.write_text(json.dumps(manifest))
    stated = json.loads((shown / "manifest.json").read_text())["cost"]["state_bytes"] / 1e6
    rows = {row["method"]: row["Kept state (MB)"] for row in csv.DictReader(costs.render([tmp_path], "csv").splitlines())}
    assert float(rows["coop"]) == stated and rows["cgil"] == ""
