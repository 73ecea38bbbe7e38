"""Every method learns, resumes and scores on a GPU: the runs of small_runs.py beside the same ones on the CPU."""

import contextlib
import dataclasses
from pathlib import Path

import pandas as pd
import pytest
import torch

from bench.clip import backbone as backbones
from bench.images.dataset import Folders
from bench.runs import runner
from bench.runs.moments import Moment
from bench.system import registry
from tests.bench.small_runs import loaded, small_run

DEVICE = "cuda"
APART = 0.1  # of the mean accuracy of a run with 18 test images: borderline images change sides


class Stopped(Exception):
    pass


def stop_at_the_second_task(moment: Moment) -> None:
    if moment.done == 1:
        raise Stopped


def records(name: str, out: Path, cache: Path, device: str, stopped: bool = False) -> pd.DataFrame:
    run = dataclasses.replace(small_run(name, out), device=device)
    backbone = backbones.load("mini", None, device, "float32")
    folders = Folders(data=cache / "no-data", cache=cache)
    if stopped:
        with contextlib.suppress(Stopped):
            runner.execute(loaded(run), backbone, folders, stop_at_the_second_task)
    runner.execute(loaded(run), backbone, folders)
    return pd.read_csv(run.folder / "records.csv")


def difference(name: str, out: Path, cache: Path, device: str) -> float:
    """How far the mean accuracy of a run that was stopped and resumed on the device is from that of one on the CPU; all else in
    their records has to be the same."""
    cpu, own = records(name, out / "cpu", cache, "cpu"), records(name, out / "device", cache, device, stopped=True)
    described = [column for column in cpu if column not in ("run_id", "value")]
    pd.testing.assert_frame_equal(own[described], cpu[described])
    return abs(own["value"].mean() - cpu["value"].mean())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", registry.names("method"))
def test_a_run_that_was_stopped_and_resumed_on_a_gpu_scores_as_on_the_cpu(name, tmp_path, cache):
    assert difference(name, tmp_path, cache, DEVICE) < APART
