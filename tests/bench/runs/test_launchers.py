"""Launchers: the same plan by workers of this machine, and what a lost worker or a run that fails does to the others."""

import json

import pytest

from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.runs import estimate, failures, local_pool, method_costs, run_sizes
from bench.runs.launch import Hopeless, Outcome, Place, claim, forget, launch
from bench.runs.run import Run
from bench.system import registry
from tests.bench.launched import kill_first, results, runs_of
from tests.bench.small_runs import small_run

QUICK = ("--protocol", "mini60-6x10", "--limit-train", "2", "--limit-test", "1")


def reported(runs, outcomes_of, tmp_path, **options):
    """The outcomes of a launch by a launcher that ends runs as it is told."""

    def launcher(waiting, place, report):
        return [outcomes_of(run) for run in waiting]

    return launch(runs, Folders(tmp_path, tmp_path), 1, launcher, **options)


def test_outcomes_come_in_the_order_of_the_plan(tmp_path):
    runs = runs_of(["zero-shot", "coop", "cgil"], tmp_path)
    found = launch(
        runs, Folders(tmp_path, tmp_path), 1, lambda waiting, place, report: [Outcome(run, "finished") for run in waiting[::-1]]
    )
    assert [outcome.run for outcome in found] == runs


def test_a_run_that_failed_by_itself_waits_for_retry_failed(tmp_path):
    runs = runs_of(["zero-shot", "coop"], tmp_path)
    failures.record(runs[1], failures.of_error(runs[1], ValueError("no luck")))
    first, second = reported(runs, lambda run: Outcome(run, "finished"), tmp_path)
    assert (first.status, second.status) == ("finished", "failed")
    assert "ValueError: no luck" in second.reason and "--retry-failed" in second.reason
    again = reported(runs, lambda run: Outcome(run, "finished"), tmp_path, retry_failed=True)
    assert [outcome.status for outcome in again] == ["finished", "finished"]


def test_missing_data_of_one_protocol_leaves_the_others_alone(tmp_path):
    runs = runs_of(["zero-shot"], tmp_path, protocols=["mini60-6x10", "mini-objects60-6x10"])

    def ends(run):
        return Outcome(run, "finished") if run is runs[0] else Outcome(run, "failed", "no images", "protocol")

    assert [outcome.status for outcome in reported(runs, ends, tmp_path)] == ["finished", "failed"]
    with pytest.raises(BenchError, match="no images"):
        reported(runs[1:], ends, tmp_path)


def test_what_cannot_begin_is_not_tried_for_every_seed(tmp_path):
    one, other, elsewhere = runs_of(["zero-shot"], tmp_path, seeds=[0, 1]) + runs_of(["coop"], tmp_path)
    hopeless = Hopeless()
    hopeless.note(Outcome(one, "failed", "no reference data", "method"))
    assert hopeless.known(other).reason == "no reference data"
    assert hopeless.known(elsewhere) is None
    hopeless.note(Outcome(one, "failed", "the loss is not finite"))  # says nothing about others
    assert hopeless.known(elsewhere) is None
    hopeless.note(Outcome(one, "failed", "no images", "protocol"))
    assert hopeless.known(elsewhere) == Outcome(elsewhere, "failed", "no images", "protocol")


@pytest.mark.parametrize(
    ("visible", "device", "wanted"),
    [
        ("3,5", "cuda", ["3", "5", "3"]),
        ("3,5", "cuda:1", ["5", "5", "5"]),
        ("GPU-a", "cuda", ["GPU-a"] * 3),
        ("3,5", "cpu", ["3,5"] * 3),
    ],
)
def test_each_worker_sees_one_gpu(monkeypatch, visible, device, wanted):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    environments = [local_pool._environment(worker, device, 2) for worker in range(3)]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in environments] == wanted
    assert {environment["OMP_NUM_THREADS"] for environment in environments} == {"2"}


@pytest.mark.slow
def test_workers_give_the_same_files_as_one_process_even_when_one_is_killed(bench, start_bench, tmp_path):
    options = (*QUICK, "--methods", "zero-shot,coop,finetune", "--set", "finetune.epochs=4")
    assert bench("run", *options, "--out", "alone").returncode == 0
    run = runs_of(["finetune"], tmp_path / "pool", set=["finetune.epochs=4"])[0]
    pool = start_bench("run", *options, "--out", "pool", "--jobs", "2")
    kill_first(tmp_path / "pool", run)
    assert pool.wait(timeout=300) == 0
    assert results(tmp_path / "pool") == results(tmp_path / "alone") and len(results(tmp_path / "pool")) == 6
    lost = json.loads((run.folder / "manifest.json").read_text())["earlier_failures"]
    assert [failure["cause"] for failure in lost] == ["machine"] and "SIGKILL" in lost[0]["reason"]
    again = bench("run", *options, "--out", "pool", "--jobs", "2")
    assert again.returncode == 0 and "nothing to do" in again.stdout


@pytest.mark.slow
def test_a_worker_that_is_lost_for_good_costs_one_run(cache, tmp_path):
    runs = runs_of(["finetune", "zero-shot"], tmp_path, set=["finetune.epochs=4"])
    killer = []

    def report(run, done, what):
        if run is runs[0] and done == 1 and not killer:
            killer.append(kill_first(tmp_path, run))

    outcomes = list(local_pool.launch(runs, Place(Folders(cache, cache), 1), report, jobs=1, retries=0))
    assert {o.run.method: o.status for o in outcomes} == {"finetune": "failed", "zero-shot": "finished"}
    assert failures.of(runs[0])[-1].cause == "machine"


# -- the estimate -------------------------------------------------------------------------------------------------


def finished(run: Run, seconds: float) -> None:
    run.folder.mkdir(parents=True)
    cost = {"seconds_prepare": 1.0, "seconds_per_task": [{"learn": seconds - 2, "evaluate": 1.0}]}
    (run.folder / "manifest.json").write_text(json.dumps({"run_id": run.run_id, "identity": run.identity, "cost": cost}))
    (run.folder / "records.csv").write_bytes(b"x" * 5000)


def test_the_estimate_prefers_the_same_protocol_and_never_takes_another_device(tmp_path):
    here, there = (runs_of(["coop"], tmp_path, protocols=[name])[0] for name in ("mini60-6x10", "mini-objects60-6x10"))
    finished(here, 100)
    wanted = runs_of(["coop"], tmp_path, protocols=["mini60-6x10", "mini-objects60-6x10"], seeds=[1])
    assert [cost.seconds for cost in estimate.of_plan(wanted)] == [100, 100]
    assert [cost.judged_by for cost in estimate.of_plan(wanted)] == ["finished runs", "other protocol"]
    finished(there, 40)
    assert [cost.seconds for cost in estimate.of_plan(wanted)] == [100, 40]
    assert all(cost.bytes > 5000 for cost in estimate.of_plan(wanted))
    assert estimate.of_plan(runs_of(["coop"], tmp_path, seeds=[1], device="cuda")) == [None]


def test_the_estimate_of_a_plan_says_what_it_leaves_out(tmp_path):
    wanted = runs_of(["coop", "cgil"], tmp_path, seeds=[0, 1], device="cuda")
    finished(runs_of(["coop"], tmp_path, device="cuda")[0], 100)
    said = estimate.summary(wanted, estimate.of_plan(wanted))
    assert "about 1 min 40 s and 5." in said and "1 run judged by finished runs like them" in said
    assert "2 of 3 runs unknown and not counted" in said and f"no finished run in {tmp_path} tells" in said
    assert "with 2 at a time" in estimate.summary(wanted, estimate.of_plan(wanted), workers=2)


def test_a_damaged_manifest_is_no_guide(tmp_path):
    run = runs_of(["coop"], tmp_path)[0]
    finished(run, 100)
    (run.folder / "manifest.json").write_text("{")
    assert [cost.judged_by for cost in estimate.of_plan(runs_of(["coop"], tmp_path, seeds=[1]))] == ["table"]


def finished_with_images(run: Run, seconds: float) -> None:
    finished(run, seconds)
    manifest = json.loads((run.folder / "manifest.json").read_text())
    size = run_sizes.of_run(run)
    images = {"train_images": size.train / size.tasks, "test_images": size.test / size.tasks}
    (run.folder / "manifest.json").write_text(json.dumps(manifest | {"tasks": [images] * size.tasks}))


def test_runs_with_other_limits_are_scaled_by_images(tmp_path):
    (coop,) = runs_of(["coop"], tmp_path)
    finished_with_images(coop, 100)  # 2 training images and 1 test image of a class; 1 s of scoring
    twice = runs_of(["coop"], tmp_path, set=[f"coop.epochs={2 * coop.settings['epochs']}"])
    wanted = runs_of(["coop"], tmp_path, limit_train=6, limit_test=5) + twice
    found = estimate.of_plan(wanted)
    assert [cost.judged_by for cost in found] == ["other limits", "other settings"]
    assert [round(cost.seconds) for cost in found] == [99 * 3 + 1 * 5, 99 * 2 + 1]
    assert found[0].bytes > 4 * 5000


def test_updates_that_are_counted_do_not_grow_with_the_images(tmp_path):
    finished_with_images(runs_of(["finetune"], tmp_path)[0], 100)
    (cost,) = estimate.of_plan(runs_of(["finetune"], tmp_path, limit_train=6))
    assert round(cost.seconds) == 100 and cost.judged_by == "other limits"


def test_a_fresh_folder_is_answered_from_the_table_and_the_machines_speed(tmp_path):
    wanted = runs_of(["coop", "cgil", "zero-shot"], tmp_path, seeds=[0, 1])
    asked = []
    slow, fast = ([cost.seconds for cost in estimate.of_plan(wanted, None, speed)] for speed in (
        lambda: asked.append(1) or 1e3, lambda: 1e4,
    ))  # fmt: skip
    assert len(asked) == 1 and slow == pytest.approx([10 * seconds for seconds in fast])
    coop, _, cgil, _, zero_shot, _ = fast
    assert cgil > 2 * coop > 2 * zero_shot > 0
    said = estimate.summary(wanted, estimate.of_plan(wanted))
    assert "6 runs judged by a table of relative costs and a moment's measurement" in said and "factor" in said


def test_finished_runs_of_other_methods_say_how_long_a_unit_of_the_table_takes(tmp_path):
    finished_with_images(runs_of(["coop"], tmp_path, device="cuda")[0], 100)
    known, unknown = (
        runs_of(["cgil"], tmp_path, device="cuda", precision=precision)[0] for precision in ("float32", "bfloat16")
    )
    found = estimate.of_plan([known, unknown], None, speed=lambda: pytest.fail("another device is not judged by this processor"))
    assert found[0].judged_by == "other methods" and found[0].seconds > 100 and found[1] is None
    said = estimate.summary([known, unknown], found)
    assert "1 of 2 runs unknown" in said and "mini on cuda in bfloat16" in said


def test_the_table_knows_every_method():
    assert set(method_costs.read()) == set(registry.names("method"))
    assert all(row.training >= 0 and row.scoring > 0 for row in method_costs.read().values())


def test_fresh_leaves_alone_what_another_process_is_carrying_out(tmp_path):
    one, other = small_run("simplecil", tmp_path), small_run("zero-shot", tmp_path)
    for run in (one, other):
        run.folder.mkdir(parents=True)
    with claim(other), pytest.raises(BenchError, match="zero-shot.*is being carried out by process"):
        forget([one, other], "--fresh")
    assert one.folder.exists() and other.folder.exists()
    forget([one, other], "--fresh")
    assert not one.folder.exists() and not other.folder.exists()
