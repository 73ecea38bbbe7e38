"""`bench run`: from options, or a study file with options that go before it, to runs, to a launcher, to the table."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bench.commands import completion, waiting
from bench.commands.options import (
    CACHE_DIR,
    DATA_DIR,
    Option,
    chosen_folders,
    split_names,
    split_protocols,
    split_seeds,
    with_options,
)
from bench.errors import BenchError, printable, unknown_name
from bench.runs.request import KEYS, LARGEST_LIMIT, MOST_PROCESSES, ONE_OF, Request, Study

if TYPE_CHECKING:
    from bench.images.dataset import Folders
    from bench.runs.facts import Facts
    from bench.runs.launch import Launcher, Outcome
    from bench.runs.reuse import Reuse
    from bench.runs.run import Run

LAUNCHERS = ("here", "slurm")


OPTIONS: dict[str, Option] = {
    "study": click.option(
        "--study", type=click.Path(path_type=Path), help="TOML file with the runs; other options go before it."),
    "protocols": click.option(
        "--protocol", "protocols", callback=split_protocols, help="Protocol, or several separated by commas.",
        shell_complete=completion.several_of("protocol")),
    "methods": click.option(
        "--methods", callback=split_names, help='Methods separated by commas, or "all".',
        shell_complete=completion.several_of("method", "all")),
    "seeds": click.option("--seeds", default="0", callback=split_seeds, help="Seeds of everything random in training.  [0]"),
    "order_seeds": click.option("--order-seeds", default="0", callback=split_seeds, help="Seeds of the class order.  [0]"),
    "backbone": click.option("--backbone", default="mini", show_default=True, help="mini, or an open_clip architecture."),
    "pretrained": click.option(
        "--pretrained", metavar="TAG|FILE|FOLDER", help="Its weights: open_clip tag, file, folder, or none."),
    "device": click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    "precision": click.option(
        "--precision", default="auto", show_default=True, type=click.Choice(ONE_OF["precision"]),
        help="Of the towers' blocks; auto: float32 on the CPU, half on a GPU."),
    "accelerate": click.option(
        "--accelerate", default="none", show_default=True, type=click.Choice(ONE_OF["accelerate"]),
        help="Training by compiled functions, or with steps as CUDA graphs; numbers differ by rounding."),
    "recipe": click.option(
        "--recipe", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
        help="Settings that bench tune has found; may be repeated. --set goes before them."),
    "set": click.option("--set", multiple=True, metavar="METHOD.FIELD=VALUE", help="Change a hyper-parameter."),
    "ablate": click.option(
        "--ablate", multiple=True, metavar="METHOD.FIELD=VALUE", help="Run the method with this change too; may be repeated."),
    "data": click.option(
        "--data", default="real", show_default=True, type=click.Choice(ONE_OF["data"]),
        help="synthetic: stand-in images of the right number and size, to measure speed and memory."),
    "limit_train": click.option(
        "--limit-train", type=click.IntRange(1, LARGEST_LIMIT), help="Keep the first N training images of every class."),
    "limit_test": click.option(
        "--limit-test", type=click.IntRange(1, LARGEST_LIMIT), help="Keep the first N test images of every class."),
    "processes": click.option(
        "--processes", type=click.IntRange(1, MOST_PROCESSES), default=1, show_default=True,
        help="Processes that carry out one run together, each on a GPU of its own, or on the CPU."),
    "keep_model": click.option(
        "--keep-model", is_flag=True, help="Keep the trained model in the run's folder, for bench predict and bench learn."),
    "out": click.option("--out", default="results", type=click.Path(path_type=Path), show_default=True, help="Results folder."),
    "threads": click.option(
        "--threads", type=click.IntRange(1, 1024), envvar="BENCH_THREADS",
        help="CPU threads of a run.  [1 for mini, else torch's; with --jobs the cores divided]"),
    "dry_run": click.option(
        "--dry-run", is_flag=True, help="Print the plan, with time and disk as far as they can be judged, and stop."),
    "preflight": click.option(
        "--preflight", is_flag=True,
        help="List everything that the plan needs and that is missing here (weights, data, disk), and stop."),
    "fresh": click.option("--fresh", is_flag=True, help="Forget finished and unfinished runs of this plan and start over."),
    "rerun_changed": click.option(
        "--rerun-changed", is_flag=True,
        help="Run finished runs again whose method's code, images or other data have changed since."),
    "retry_failed": click.option("--retry-failed", is_flag=True, help="Try runs again that have failed by themselves."),
    "jobs": click.option(
        "--jobs", type=click.IntRange(1, 1024), default=1, show_default=True,
        help="Runs at a time on this machine, each in a worker process; spread over its GPUs."),
    "launcher": click.option(
        "--launcher", type=click.Choice(LAUNCHERS), default="here", show_default=True, help="This machine or a cluster."),
    "slurm_options": click.option(
        "--slurm", "slurm_options", multiple=True, metavar="KEY=VALUE",
        help="For the cluster's jobs, e.g. partition=gpu; may be repeated."),
}  # fmt: skip


@click.command("run", short_help="Run methods on protocols and print the table.")
@with_options(OPTIONS.values())
@DATA_DIR
@CACHE_DIR
def run_command(data_dir: Path | None, cache_dir: Path | None, **given: Any) -> None:
    """Run methods on protocols and print the table. A finished run is skipped, an unfinished one continued."""
    raise SystemExit(run(given, chosen_folders(data_dir, cache_dir)))


def run(given: dict[str, Any], folders: "Folders") -> int:
    """Carry out the command and return its exit code; `given` holds the options by name."""
    study = study_of(given)
    launcher = launcher_of(given, study)
    plan = planned(study, given, folders, launcher)
    if given["preflight"]:
        return preflight_of(plan.runs, folders)
    click.echo(plan.text(given))
    if given["dry_run"]:
        for line in what_cannot_fit(plan, folders) if given["launcher"] == "here" else []:
            click.echo(line)
        return 0
    for remark in plan.remarks:
        click.echo(remark, err=True)
    if not (plan.to_do or plan.not_asked_for or plan.failed):
        click.echo("nothing to do: every run of this plan is finished (--fresh starts over)")
    outcomes = carried_out(plan, given, folders, launcher)
    return 130 if outcomes is None else _conclude(outcomes, plan.not_asked_for)


@dataclass(frozen=True)
class Plan:
    """The runs that are asked for, and what is there of each."""

    runs: list["Run"]
    found: dict[str, "Reuse"]
    again: list["Run"]  # finished runs that are made again, because what they were made from has changed
    failed: list["Run"]  # runs that have failed by themselves and are not tried again
    remarks: list[str]
    retry_failed: bool
    gpu_memory: int = 0  # bytes of this machine's GPU; 0: none, or nobody asked

    @property
    def to_do(self) -> set[str]:
        """The ids of those that will be carried out."""
        wanted = {one.run_id for one in self.runs
                  if self.found[one.run_id].state != "finished" or not one.finished or one in self.again}  # fmt: skip
        return wanted - {one.run_id for one in self.failed}

    @property
    def not_asked_for(self) -> set[str]:
        """Finished runs on other data than the ones that are there now."""
        to_do = self.to_do
        finished = {run_id for run_id, found in self.found.items() if found.state == "finished"}
        return {run_id for run_id in finished - to_do if not self.found[run_id].shown}

    @property
    def statuses(self) -> list[str]:
        """Of each run, in words."""
        return [_status(self.found[one.run_id], one in self.again, self.retry_failed) for one in self.runs]

    def text(self, given: dict[str, Any]) -> str:
        """The plan as a table; for --dry-run with what it costs, and all there is to say."""
        from bench.runs import estimate, plan

        to_do, statuses = self.to_do, self.statuses
        if not given["dry_run"]:
            return plan.render(self.runs, statuses, to_do)
        costs = estimate.of_plan(self.runs, to_do)
        table = plan.render(self.runs, statuses, to_do, estimate.columns(self.runs, costs, to_do))
        return "\n".join([table, *self.remarks, estimate.summary(self.runs, costs, given["jobs"], to_do)])


def planned(
    study: Study, given: dict[str, Any], folders: "Folders", launcher: "Launcher", wanted: "Callable[[Run], bool] | None" = None
) -> Plan:
    """The runs of the study that are wanted, and what is there of them; notes are printed."""
    from bench.runs import launch, reuse
    from bench.runs.facts import Facts

    with Facts(folders, here=launcher is launch.in_process and not given["dry_run"]) as facts:
        runs, notes = _runs_of(study, facts, elsewhere=given["launcher"] == "slurm")
        runs = [one for one in runs if wanted is None or wanted(one)]
        found = reuse.examine(runs, facts)
        of_gpu = facts.gpu_memory() if given["dry_run"] and any(one.device.startswith("cuda") for one in runs) else 0
    for note in dict.fromkeys(notes):
        click.echo(f"note: {note}", err=True)
    if given["fresh"]:
        found = {one.run_id: reuse.NOTHING for one in runs}
    changed = [one for one in runs if found[one.run_id].state == "finished" and found[one.run_id].differs]
    failed = [] if given["retry_failed"] or given["fresh"] else [one for one in runs if found[one.run_id].failed]
    remarks = [*reuse.remarks(runs, found, given["rerun_changed"]), *(reuse.of_failed(failed, found) if given["dry_run"] else [])]
    again = changed if given["rerun_changed"] else []
    runs = runs if again else reuse.for_models(runs, found)
    return Plan(runs, found, again, failed, [f"note: {remark}" for remark in remarks], given["retry_failed"], of_gpu)


def what_cannot_fit(plan: Plan, folders: "Folders") -> list[str]:
    """One line for each run that needs more memory than this machine has, and for a disk without room for embeddings."""
    from bench.images.folders import Unknown
    from bench.runs import memory_needs

    found = memory_needs.warnings(plan.runs, plan.to_do, memory_needs.Machine(device=plan.gpu_memory))
    if not isinstance(folders.cache, Unknown):
        found += memory_needs.embeddings_on_disk([one for one in plan.runs if one.run_id in plan.to_do], folders.cache)
    return found


def carried_out(
    plan: Plan, given: dict[str, Any], folders: "Folders", launcher: "Launcher", each_reason: bool = False
) -> "list[Outcome] | None":
    """How the runs of a plan ended; None if somebody interrupted them.

    each_reason: where none could begin say why for each of them, instead of the one BenchError of `bench run`.
    """
    from bench.runs import launch

    if given["fresh"]:
        launch.forget(plan.runs, "--fresh")
    launch.forget(plan.again, "--rerun-changed")
    threads = given["threads"] or (1 if all(one.backbone == "mini" for one in plan.runs) else None)
    waiting.stop()
    try:
        start = launch.outcomes_of if each_reason else launch.launch
        return start(plan.runs, folders, threads, launcher, given["retry_failed"], waiting.quiet())
    except KeyboardInterrupt:
        click.echo("\ninterrupted: finished tasks are kept, the same command continues", err=True)
        return None
    except OSError as error:
        raise _of_a_folder(error, plan.runs, folders) or error from error


def _status(found: "Reuse", again: bool, retry_failed: bool) -> str:
    """What the table of the plan says of a run."""
    if found.failed and retry_failed:
        return f"{found.status}, tried again"
    return ("runs again: " if again else "") + found.status


def _of_a_folder(error: OSError, runs: Sequence, folders) -> BenchError | None:
    """The line that names the option, where it is one of the folders that could not be used."""
    from bench.images.folders import refused

    found = (refused(error, folders, out) for out in dict.fromkeys(one.out for one in runs))
    return next(filter(None, found), None)


def preflight_of(runs: Sequence, folders: "Folders") -> int:
    """Print what is there and what is missing for the whole plan."""
    from bench.runs import preflight

    looked = preflight.examine(runs, folders)
    click.echo("\n".join(looked.lines))
    return 1 if looked.missing else 0


def _conclude(outcomes: Sequence, not_asked_for: Collection[str]) -> int:
    """Print the table of what is finished and the list of what is not; the runs on other data have their line already."""
    from bench.reports import tables
    from bench.results import records

    done = [o.run.files.records for o in outcomes if o.run.finished and o.run.run_id not in not_asked_for]
    if done:
        click.echo("\n" + tables.render(records.load(done), manifests=records.readable_manifests(done)))
    for outcome in outcomes:
        if outcome.reason:
            click.echo(f"{outcome.run.label}: {outcome.status}: {printable(outcome.reason)}{_traceback(outcome)}", err=True)
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if failed:
        click.echo(f"{failed} of {len(outcomes)} runs failed; --retry-failed tries them again", err=True)
    return 1 if failed or not_asked_for else 0


def _traceback(outcome: "Outcome") -> str:
    """Where it is to be read, if there is one."""
    there = outcome.status == "failed" and outcome.scope == "run" and outcome.run.files.traceback.exists()
    return f"; traceback: {printable(str(outcome.run.files.traceback))}" if there else ""


def study_of(given: dict[str, Any]) -> Study:
    """The runs that are asked for: those of the options, or of the study file with the given options before it."""
    from bench.runs import request

    if not given["study"]:
        return Study((request_of(given, ", or --study FILE"),), {})
    return request.read(given["study"], asked(given))


def asked(given: dict[str, Any]) -> dict[str, Any]:
    """The options of a request that the command line gives, by name."""
    sources = click.get_current_context().get_parameter_source
    return {name: value for name, value in _values(given).items() if sources(name) not in (ParameterSource.DEFAULT, None)}


def request_of(given: dict[str, Any], otherwise: str = "") -> Request:
    """The request that a command line makes by itself; otherwise: what may stand in the place of --protocol and --methods."""
    request = Request(**_values(given))
    for option, names in (("--protocol", request.protocols), ("--methods", request.methods)):
        if not names:
            raise BenchError(f"{option} is wanted{otherwise}")
    return request


def _values(given: dict[str, Any]) -> dict[str, Any]:
    """The options that are fields of a request, by name."""
    from bench.runs import assignments

    values = {name: given[name] for name in KEYS if name in given}
    return values | {"set": tuple(assignments.parse(text) for text in given["set"])}


def _runs_of(study: Study, facts: "Facts", elsewhere: bool) -> tuple[list["Run"], list[str]]:
    """The runs of all parts of the study, each once, and notes. elsewhere: on machines that may have other devices."""
    from bench.runs import plan
    from bench.system import registry

    for request in study.requests:
        refuse_unknown(request.protocols, request.methods)
    registry.refuse_one_name_twice(name for request in study.requests for name in request.methods)
    runs, notes = [], []
    for request in study.requests:
        resolved = _resolved_for_a_cluster(request) if elsewhere else facts.resolved(request)
        found, said = plan.build(resolved, facts, study.methods)
        runs += found
        notes += said
    plan.refuse_idle_recipes(study.requests, runs)
    return plan.without_repeats(runs), notes


def refuse_unknown(protocols: Sequence[str], methods: Sequence[str]) -> None:
    """Names that are surely wrong are said before anything heavy is imported."""
    from bench.streams import names as protocol_names
    from bench.system import registry

    for name in protocols:
        if not protocol_names.looks_possible(name):
            raise unknown_name("protocol", name, registry.names("protocol"))
    for name in methods:
        if name != "all" and not registry.knows("method", name):
            raise unknown_name("method", name, [*registry.names("method"), "all"])


def _resolved_for_a_cluster(request: Request) -> Request:
    """Of machines that this one knows nothing about: it has to be said."""
    if request.device == "auto" or (request.device != "cpu" and request.precision == "auto"):
        raise BenchError(
            "on a cluster say what its machines have: --device cpu, or --device cuda with a --precision (bfloat16, say)"
        )
    return replace(request, precision="float32" if request.precision == "auto" else request.precision)


def launcher_of(given: dict[str, Any], study: Study) -> "Launcher":
    """The way in which the runs will be carried out."""
    from bench.runs import launch

    if given["launcher"] == "slurm":
        from bench.runs import slurm

        return partial(slurm.launch, options=slurm.read_options(study.slurm, given["slurm_options"]))
    if given["slurm_options"]:
        raise BenchError("--slurm is for --launcher slurm")
    if given["jobs"] > 1:
        if any(request.processes > 1 for request in study.requests):
            raise BenchError("--jobs carries out several runs at a time, --processes one run by several: choose one of them")
        from bench.runs import local_pool

        return partial(local_pool.launch, jobs=given["jobs"])
    return launch.in_process
