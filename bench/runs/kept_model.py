"""A trained model on disk: the method's state after its last task, and all that it takes to build the method around it again.

One file, model.safetensors, in the folder of a run (`bench run --keep-model`) or of what `bench learn` has made of one. It holds
no image and needs no data set: the facts beside the tensors are the run (method, settings, backbone, seed), the scenario with the
names and prompts of all classes, and the tasks that were learned. It has a digest of itself (bench/runs/sealed_file.py).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, one_line
from bench.results.run_folder import MODEL, RunFolder
from bench.runs import sealed_file
from bench.runs.run import LoadedRun, Run
from bench.runs.sealed_file import Damaged
from bench.streams.scenario import Scenario
from bench.system.version import VERSION

if TYPE_CHECKING:
    import torch

    from bench.learning.method import Method
    from bench.streams.stream import Stream

FORMAT = 1  # bump when the facts mean something else, or others are needed
AGAIN = "delete it, and the command that made it makes it again"


@dataclass(frozen=True)
class LearnedTask:
    """A task that the model has learned. folder: it was the user's own, which lay there; empty: it is one of the run's stream."""

    name: str
    classes: tuple[int, ...]
    folder: str = ""
    images: str = ""  # digest of the training images in that folder


@dataclass(frozen=True)
class KeptModel:
    """A model as its file holds it."""

    run: Run  # with the folder of the file as `out`, which means nothing
    scenario: Scenario
    templates: tuple[str, ...] | None  # of the protocol, for all classes; None: every data set has its own
    tasks: tuple[LearnedTask, ...]
    weights_digest: str
    draws: str  # the name of the stream in those of its random numbers
    made_from: dict[str, Any]  # source of the method, images, reference data, versions and hardware
    state: "dict[str, torch.Tensor]" = field(repr=False)

    @property
    def n_learned(self) -> int:
        """Classes that it has learned: the first so many of the scenario's."""
        return 1 + max(c for task in self.tasks for c in task.classes)

    def to_bytes(self) -> bytes:
        run = {name: value for name, value in self.run.to_json().items() if name not in ("out", "keep_model")}
        facts = {
            "format": FORMAT,
            "bench": VERSION,
            "run_id": self.run.run_id,
            "run": run,
            "scenario": dataclasses.asdict(self.scenario),
            "templates": self.templates,
            "tasks": [dataclasses.asdict(task) for task in self.tasks],
            "weights_digest": self.weights_digest,
            "draws": self.draws,
            "made_from": self.made_from,
        }
        return sealed_file.to_bytes({name: value.contiguous().clone() for name, value in self.state.items()}, facts)


def of_run(
    loaded: LoadedRun, method: "Method", stream: "Stream", weights_digest: str, made_from: dict[str, Any]
) -> bytes:
    """The file for the method at the end of a run."""
    tasks = tuple(LearnedTask(task.name, task.classes) for task in stream.tasks)
    protocol = loaded.protocol
    return KeptModel(
        loaded.run, stream.scenario, protocol.templates, tasks, weights_digest, protocol.known_as, made_from, method.state_dict()
    ).to_bytes()


# -- reading ----------------------------------------------------------------------------------------------------


def find(path: Path) -> Path:
    """The file of a model, from its path, its folder, or a results folder that holds no other; BenchError if there is none."""
    if path.is_file():
        return path
    if not path.exists():
        raise BenchError(f"{path}: no such file or folder; name the folder of a run that was made with bench run --keep-model")
    if (path / MODEL).is_file():
        return path / MODEL
    found = sorted(path.glob(f"*/*/*/{MODEL}")) or sorted(path.rglob(MODEL))
    if len(found) > 1:
        some = ", ".join(str(file.parent) for file in found[:3]) + (", ..." if len(found) > 3 else "")
        raise BenchError(f"{path} holds {len(found)} kept models; name the folder of one ({some})")
    if not found:
        what = "a run whose model was not kept" if RunFolder(path).finished else "no kept model there"
        raise BenchError(f"{path}: {what}; repeat its bench run with --keep-model")
    return found[0]


def check(file: Path) -> None:
    """BenchError if the file is not as it was written; one of another version may be whole."""
    _content(file)


def _content(file: Path) -> "tuple[dict[str, Any], dict[str, torch.Tensor]]":
    try:
        facts, state = sealed_file.from_bytes(file.read_bytes(), "kept model")
    except Damaged as error:
        raise BenchError(f"{file}: {error}; {AGAIN}") from error
    except OSError as error:
        raise BenchError(f"{file}: cannot be read ({one_line(error)})") from error
    if "format" not in facts or "scenario" not in facts:
        raise BenchError(f"{file}: no kept model; {AGAIN}")
    return facts, state


def read(path: Path) -> KeptModel:
    """The model at a path that `find` takes; BenchError in one line for a file that is damaged or of another version."""
    file = find(path)
    facts, state = _content(file)
    if facts["format"] != FORMAT:
        raise BenchError(
            f"{file}: kept by version {facts.get('bench')} of the program in a form that version {VERSION} does not read; {AGAIN}"
        )
    try:
        return KeptModel(
            run=Run.from_json({**facts["run"], "out": str(file.parent)}),
            scenario=_scenario(facts["scenario"]),
            templates=None if facts["templates"] is None else tuple(facts["templates"]),
            tasks=tuple(LearnedTask(**{**task, "classes": tuple(task["classes"])}) for task in facts["tasks"]),
            weights_digest=facts["weights_digest"],
            draws=facts["draws"],
            made_from=facts["made_from"],
            state=state,
        )
    except (KeyError, TypeError) as error:
        raise BenchError(f"{file}: kept by another version of the program ({one_line(error)}); {AGAIN}") from error


def _scenario(facts: Mapping[str, Any]) -> Scenario:
    """From what JSON has made of it: tuples have become lists."""
    tuples = {name: tuple(facts[name]) for name in ("class_names", "task_of_class")}
    return Scenario(**{**facts, **tuples, "templates": tuple(map(tuple, facts["templates"]))})


def with_classes(scenario: Scenario, names: tuple[str, ...], templates: tuple[str, ...]) -> Scenario:
    """The scenario with one more task of these classes."""
    return replace(
        scenario,
        class_names=(*scenario.class_names, *names),
        templates=(*scenario.templates, *[templates] * len(names)),
        task_of_class=(*scenario.task_of_class, *[scenario.n_tasks] * len(names)),
    )
