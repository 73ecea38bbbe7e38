"""`bench export`: what other tools get of a run, read back with their own libraries."""

import os
import subprocess
import sys

import pandas as pd
import pytest

from bench.commands.export import TOOLS as OFFERED
from bench.errors import BenchError
from bench.reports.export import content, tools
from bench.results import records
from tests.bench.fake_records import fake_records

LOG = "task,name,phase,epoch,step,loss,seconds\n0,task 1,vae,1,3,0.5,0.1\n0,task 1,vae,2,6,0.25,0.2\n1,task 2,vae,1,3,0.75,0.1\n"
LOG += "1,ta"  # of a writer that was killed


@pytest.fixture
def stored(tmp_path):
    """Two methods, two seeds; one run has the log of its losses, whose last line was cut off."""
    table = fake_records(methods=("zero-shot", "coop"), seeds=(0, 1))
    for run_id, own in table.groupby("run_id", sort=False):
        folder = tmp_path / "results" / "mini60-6x10" / own["method"].iloc[0] / run_id
        folder.mkdir(parents=True)
        (folder / "records.csv").write_text(records.to_csv(own.to_dict("records")))
        settings = '{"epochs": 3, "layers": [1, 2]}'
        identity = f'{{"method_version": "1", "device": "cpu", "settings": {settings}}}'
        cost = '{"seconds_prepare": 2.0, "image_passes": 7}'
        (folder / "manifest.json").write_text(f'{{"run_id": "{run_id}", "identity": {identity}, "cost": {cost}}}')
    (folder / "log.csv").write_text(LOG)
    return tmp_path / "results"


def export_twice(stored, tool, folder) -> list[content.RunContent]:
    assert tools.export([stored], tool, folder) == f"{folder}: 4 runs written, 0 there already"
    assert tools.export([stored], tool, folder) == f"{folder}: 0 runs written, 4 there already"
    return content.collect([stored])


def change_a_log(stored) -> None:
    [log] = stored.rglob("log.csv")
    log.write_text(LOG + "sk 2,vae,2,6,0.5,0.2\n")


def test_a_run_has_parameters_metrics_costs_and_curves(stored):
    runs = content.collect([stored])
    assert len(runs) == 4 and len({run.digest for run in runs}) == 4
    run = next(run for run in runs if run.losses)
    assert run.name == "coop order 0 seed 1" and run.parameters["seed"] == 1
    assert run.parameters["setting.epochs"] == 3 and run.parameters["setting.layers"] == "[1, 2]"
    assert run.metrics["cost/preparing_s"] == 2 and run.metrics["cost/encoder_passes"] == 7
    assert "cost/kept_state_mb" not in run.metrics
    assert "ece" not in run.metrics  # no scores of images were kept
    learned = run.curves[content.LEARNED]
    assert [step for step, _ in learned] == [0, 1, 2] and learned[-1][1] == pytest.approx(run.metrics["last"])
    assert run.curves["loss/vae"] == [(1, 0.5), (2, 0.25), (3, 0.75)] and len(run.curves["accuracy/2 task 3"]) == 3


def test_a_log_that_is_none_is_said(stored):
    [log] = stored.rglob("log.csv")
    log.write_text("a,b\n1,2\n")
    with pytest.raises(BenchError, match=r"log.csv: not the log of a run"):
        content.collect([stored])
    log.write_text(LOG.replace("0.25", "x"))
    with pytest.raises(BenchError, match=r"log.csv, line 3: not a row of a log"):
        content.collect([stored])


def test_tables_are_written_once_and_keep_runs_of_other_exports(stored, tmp_path):
    folder = tmp_path / "tables"
    runs = export_twice(stored, "csv", folder)
    first = {name: (folder / name).read_bytes() for name in ("runs.csv", "curves.csv", "losses.csv")}
    tools.export([stored / "mini60-6x10" / "coop"], "csv", folder)
    table = pd.read_csv(folder / "runs.csv")
    assert sorted(table["run_id"]) == sorted(run.run_id for run in runs) and table["metric.last"].notna().all()
    tools.export([stored], "csv", folder)
    assert first == {name: (folder / name).read_bytes() for name in first}
    curves = pd.read_csv(folder / "curves.csv")
    assert len(curves) == sum(len(curve) for run in runs for curve in run.curves.values())
    assert pd.read_csv(folder / "losses.csv")["loss"].tolist() == [0.5, 0.25, 0.75]
    (folder / "runs.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BenchError, match="not a table that bench export has written"):
        tools.export([stored], "csv", folder)


def test_tensorboard_reads_the_runs(stored, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    export_twice(stored, "tensorboard", tmp_path / "events")
    change_a_log(stored)
    assert "1 runs written, 3 there already" in tools.export([stored], "tensorboard", tmp_path / "events")
    for run in content.collect([stored]):
        place = tmp_path / "events" / run.protocol / run.method / run.run_id
        events = EventAccumulator(str(place)).Reload()
        for name, curve in run.curves.items():
            found = [(one.step, one.value) for one in events.Scalars(name)]
            assert found == [(step, pytest.approx(value)) for step, value in curve]
        assert [one.value for one in events.Scalars("last")] == [pytest.approx(run.metrics["last"])]
        assert "_hparams_/session_start_info" in events.summary_metadata
    assert len(list((tmp_path / "events").glob("*/*/*"))) == 4 and not list(tmp_path.rglob("*.unfinished"))


@pytest.mark.thorough
def test_mlflow_reads_the_runs(stored, tmp_path):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    folder = tmp_path / "mlflow"
    export_twice(stored, "mlflow", folder)
    change_a_log(stored)
    assert "1 runs written, 3 there already" in tools.export([stored], "mlflow", folder)
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mini60-6x10")
    found = {one.data.tags["bench.run_id"]: one for one in client.search_runs([experiment.experiment_id])}
    runs = content.collect([stored])
    assert set(found) == {run.run_id for run in runs} and len(client.search_runs([experiment.experiment_id])) == 4
    for run in runs:
        own = found[run.run_id]
        assert own.data.params["setting.epochs"] == "3" and own.data.metrics["last"] == pytest.approx(run.metrics["last"])
        history = client.get_metric_history(own.info.run_id, content.LEARNED)
        assert [(one.step, one.value) for one in history] == run.curves[content.LEARNED] and own.info.status == "FINISHED"


@pytest.mark.thorough
def test_wandb_stays_offline_and_inside_the_folder(stored, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    home = tmp_path / "home"
    home.mkdir()
    for name, value in {"HOME": str(home), "WANDB_MODE": "online", "WANDB_DIR": str(home), "WANDB_API_KEY": "0" * 40}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(home)
    only = stored / "mini60-6x10" / "coop"
    folder = tmp_path / "offline"
    assert "2 runs written" in tools.export([only], "wandb-offline", folder)
    assert "0 runs written, 2 there already" in tools.export([only], "wandb-offline", folder)
    change_a_log(stored)
    assert "1 runs written, 1 there already" in tools.export([only], "wandb-offline", folder)
    runs = content.collect([only])
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 2 and not list(home.rglob("*"))
    for run in runs:
        [file] = (folder / "wandb").glob(f"offline-run-*/run-{run.run_id}.wandb")
        assert all(name.encode() in file.read_bytes() for name in ("setting.epochs", content.LEARNED, "forgetting"))
    assert not list(folder.glob(".wandb-*"))


@pytest.mark.parametrize(("tool", "library"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("wandb-offline", "wandb")])
def test_a_missing_library_is_one_line_with_the_remedy(stored, tmp_path, tool, library):
    code = f"import sys; sys.modules[{library!r}] = None\nfrom bench.commands.main import main\n"
    code += f"main(['export', {str(stored)!r}, '--to', {tool!r}, '-o', 'there'])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert found.returncode == 2 and f"pip install 'continual-clip-bench[{library}]'" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_a_folder_that_is_a_file_is_one_line(stored, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot be written"):
        tools.export([stored], "csv", tmp_path / "file")


def test_the_command_offers_every_tool():
    assert sorted(OFFERED) == sorted(tools.TOOLS)
