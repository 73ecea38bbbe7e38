"""May what lies in a run's folder be taken for the run that is asked for now?

A run id is a hash of what was asked for. What a run was made from can change under the same id: the source of its method, the
images that lie under a data set's name, the reference data, the classes and prompts of a protocol whose version was not
bumped. A finished run and a checkpoint hold digests of these. Here they are compared with what is there now, before anything
is skipped or continued: nothing is reused, and nothing run again, without a word.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any, Literal

from bench.errors import BenchError, printable
from bench.results.records import read_manifest
from bench.runs import checkpoint, failures
from bench.runs.facts import Facts
from bench.runs.run import Run
from bench.streams import identity
from bench.system import registry
from bench.system.method_source import Source

State = Literal["new", "unfinished", "finished"]
CODE = "code"
IN_WORDS = {  # what differs -> how the status of a finished run says it
    CODE: "by other code",
    "images": "on other images",
    "reference": "on other reference data",
    "words": "on other classes or prompts",
}
VERSIONS = {"torch": "torch", "open_clip": "open_clip_torch", "numpy": "numpy"}  # as lines name them -> distribution


@dataclass(frozen=True)
class Reuse:
    """What there is of a run, and in what it differs from one that would be made now."""

    state: State
    tasks: int = 0  # finished ones of an unfinished run
    differs: Mapping[str, str] | None = None  # key of IN_WORDS -> a few words on how; None: nothing does
    versions: tuple[str, ...] = ()  # "torch 2.4.0, now 2.9.1"
    unknown: bool = False  # its images are not there now, so they could not be compared
    failed: str = ""  # why it failed, where it is left alone for that
    tried_again: bool = False  # it failed, and is not left alone
    without_model: bool = False  # it is finished, but the model that is asked for was not kept

    @property
    def status(self) -> str:
        """As the table of a plan says it."""
        how = ", ".join(IN_WORDS[what] for what in self.differs or ())
        if self.state == "finished":
            return f"finished, {how}" if how else "runs again for its model" if self.without_model else "finished"
        if self.failed:
            return f"failed in task {self.tasks + 1}" if self.tasks else "failed"
        begun = self.state == "unfinished" and self.tasks
        rest = (f"starts over: begun {how}" if how else f"continues after task {self.tasks}") if begun else ""
        if self.tried_again:
            return ", ".join(filter(None, ["failed", rest or "tried again"]))
        return rest or "new"

    @property
    def shown(self) -> bool:
        """Is its number an answer to what was asked? Other code of the method is said beside it; other data are not what was
        asked for."""
        return self.state == "finished" and set(self.differs or ()) <= {CODE}


NOTHING = Reuse("new")


def examine(runs: Sequence[Run], facts: Facts) -> dict[str, Reuse]:
    """Run id -> what there is of it."""
    return {run.run_id: _examined(run, facts) for run in runs}


def _examined(run: Run, facts: Facts) -> Reuse:
    if run.files.finished:
        without = not run.finished
        try:
            made_from = made_from_of_manifest(read_manifest(run.folder))
        except BenchError:
            return Reuse("finished", without_model=without)  # bench doctor and the table say what is wrong with it
        differs, unknown = differences(run, made_from, facts)
        return Reuse("finished", 0, differs or None, _versions(made_from.get("environment")), unknown, without_model=without)
    tasks = checkpoint.finished_tasks(run.checkpoint)
    lasting = failures.lasting(run)
    failed = lasting.reason if lasting else ""
    tried_again = not failed and run.files.failure.exists() and bool(failures.of(run))
    if not tasks:
        return Reuse("new", failed=failed, tried_again=tried_again)
    differs, unknown = differences(run, checkpoint.made_from(run.checkpoint), facts)
    return Reuse("unfinished", tasks, differs or None, (), unknown, failed, tried_again)


def made_from_of_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a finished run was made from, as far as its manifest says."""
    found = {key: manifest[key] for key in ("source", "images", "reference", "environment") if manifest.get(key)}
    if "images" not in found and manifest.get("images_digest"):
        found["images_digest"] = manifest["images_digest"]
    with contextlib.suppress(KeyError, TypeError):  # of an earlier version, or damaged: nothing to compare
        found["words"] = identity.words_of_manifest(manifest)
    return found


def differences(run: Run, made_from: Mapping[str, Any], facts: Facts) -> tuple[dict[str, str], bool]:
    """(what differs now -> how, in a few words; whether the images could not be compared)."""
    found = {}
    since = Source.from_json(made_from.get("source"))
    if since and (modules := registry.changes_since(run.method_given, since)):
        found[CODE] = ", ".join(modules)
    if "words" in made_from and made_from["words"] != facts.words(run.protocol_given, run.order_seed):
        found["words"] = f"the protocol's version is still {run.protocol_version}"
    images, unknown = _images(run, made_from, facts)
    if images:
        found["images"] = images
    reference = made_from.get("reference")
    if isinstance(reference, Mapping) and not run.synthetic:
        known = facts.reference(reference.get("images"), reference.get("sentences"))
        if known and (changed := [what for what in known if known[what] != reference.get(f"{what}_digest", known[what])]):
            found["reference"] = ", ".join(changed)
    return found, unknown


def _images(run: Run, made_from: Mapping[str, Any], facts: Facts) -> tuple[str, bool]:
    """(the data sets whose images are others now, whether that could not be told)."""
    if run.synthetic or run.content == "pinned":
        return "", False
    if isinstance(then := made_from.get("images"), Mapping):
        now = facts.images(run.protocol_given, run.order_seed, run.limit_train, run.limit_test)
        if now is None:
            return "", True
        return ", ".join(name for name in now if now[name] != then.get(name)), False
    if then := made_from.get("images_digest"):
        ordered = facts.images_in_learning_order(run.protocol_given, run.order_seed, run.limit_train, run.limit_test)
        return ("all" if ordered is not None and ordered != then else ""), ordered is None
    return "", False


def _versions(environment: Any) -> tuple[str, ...]:
    """The versions that have changed since a run was made."""
    if not isinstance(environment, Mapping):
        return ()
    pairs: list[tuple[str, Any, str | None]] = [("Python", environment.get("python"), python_version())]
    pairs += [(name, environment.get(package), _installed(package)) for name, package in VERSIONS.items()]
    return tuple(f"{name} {then}, now {now}" for name, then, now in pairs if then and now and then != now)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def for_models(runs: Sequence[Run], found: Mapping[str, Reuse]) -> list[Run]:
    """The runs, those without the model that was asked for if what they were made from has changed: carried out again they would
    have other results, so they are left as they are."""
    return [replace(run, keep_model=False) if _differs_without_model(found[run.run_id]) else run for run in runs]


def _differs_without_model(one: Reuse) -> bool:
    return one.without_model and bool(one.differs)


# -- what the user is told --------------------------------------------------------------------------------------


def remarks(runs: Sequence[Run], found: Mapping[str, Reuse], rerun: bool = False) -> list[str]:
    """A line for every way in which finished runs are not what would be made now, each with its remedy."""
    said = []
    for run, count, how in _grouped(runs, found, lambda one: (one.differs or {}).get(CODE) if one.shown else None):
        them = "it is" if count == 1 else "they are"
        remedy = f"{them} run again" if rerun else f"shown as {them}, {_rerun(count)}"
        said.append(f"{_runs(count, f'of {run.method}')} made by other code of the method ({how}); {remedy}")
    for run, count, how in _grouped(runs, found, _other_data):
        which = f"of {run.method} on {run.protocol}"
        them = "it is" if count == 1 else "they are"
        remedy = f"{them} run again" if rerun else f"not shown, {_rerun(count)}, another --out keeps both"
        said.append(f"{_runs(count, which)} made {how}; {remedy}")
    versions = [line for run in runs for line in found[run.run_id].versions]
    for line in dict.fromkeys(versions):
        said.append(f"{_runs(versions.count(line))} made with {line}; bench gate tells whether numbers have moved")
    said += _without_models([found[run.run_id] for run in runs], rerun)
    unknown = [run for run in runs if found[run.run_id].unknown and found[run.run_id].state == "finished"]
    for name in dict.fromkeys(run.protocol for run in unknown):
        count = sum(run.protocol == name for run in unknown)
        said.append(f"{_runs(count, f'on {name}')} not compared with the images, which are not here")
    return said


def of_failed(runs: Sequence[Run], found: Mapping[str, Reuse]) -> list[str]:
    """A line for every reason for which runs are left alone."""
    said = []
    for run, count, reason in _grouped(runs, found, lambda one: one.failed or None):
        which = f"{count} run{'s' * (count > 1)} of {run.method} on {run.protocol}"
        where = f"; traceback: {run.files.traceback}" if run.files.traceback.exists() else ""
        them = "it" if count == 1 else "them"
        said.append(f"{which} failed: {printable(reason)}{where}; --retry-failed tries {them} again")
    return said


def _without_models(found: Sequence[Reuse], rerun: bool) -> list[str]:
    """On finished runs whose model is asked for and was not kept."""
    changed = 0 if rerun else sum(map(_differs_without_model, found))
    again = sum(one.without_model and not one.differs for one in found)
    said = []
    if again:
        said.append(f"{_runs(again)} made without --keep-model, carried out again for the model: the results must come out equal")
    if changed:
        said.append(f"{_runs(changed)} made without --keep-model and of something else than now: no model, {_rerun(changed)}")
    return said


def _rerun(count: int) -> str:
    return f"--rerun-changed runs {'it' if count == 1 else 'them'} again"


def _other_data(one: Reuse) -> str | None:
    """On what other data a finished run was made."""
    if one.state != "finished" or one.shown:
        return None
    return " and ".join(f"{IN_WORDS[what]} ({how})" for what, how in (one.differs or {}).items())


def _grouped(
    runs: Sequence[Run], found: Mapping[str, Reuse], question: Callable[[Reuse], str | None]
) -> list[tuple[Run, int, str]]:
    """(first run, how many, answer) of the runs of a method and protocol that have the same answer."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        if answer := question(found[run.run_id]):
            groups.setdefault((run.protocol, run.method, answer), []).append(run)
    return [(own[0], len(own), answer) for (_, _, answer), own in groups.items()]


def _runs(count: int, which: str = "") -> str:
    """
    >>> _runs(1, "of coop"), _runs(3)
    ('1 finished run of coop was', '3 finished runs were')
    """
    return " ".join(filter(None, [f"{count} finished run{'s' * (count > 1)}", which, "was" if count == 1 else "were"]))
