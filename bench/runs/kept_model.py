"""A trained model on disk: the method's state after its last task, and all that it takes to build the method around it again.

One file, model.safetensors, in the folder of a run (`bench run --keep-model`) or of what `bench learn` has made of one. It holds
no image and needs no data set: the facts beside the tensors are the run (method, settings, backbone, seed), the scenario with the
names and prompts of all classes, and the tasks that were learned. It has a digest of itself (bench/runs/sealed_file.py), and no
path of the machine on which it was made: those lie beside it (bench/runs/places.py). The model of a run on embeddings holds those
of its texts, so that it can do without their file.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, one_line
from bench.images.embedding_facts import Facts
from bench.images.embeddings import EmbeddingFile
from bench.results.run_folder import MODEL, PLACES, RunFolder
from bench.runs import places, sealed_file
from bench.runs.places import Places
from bench.runs.run import LoadedRun, Run
from bench.runs.sealed_file import Damaged
from bench.streams.scenario import Scenario
from bench.system.files import write_atomically
from bench.system.version import VERSION

if TYPE_CHECKING:
    import torch

    from bench.learning.method import Method
    from bench.streams.stream import Stream

FORMAT = 1  # bump when the facts mean something else, or others are needed
AGAIN = "delete it, and the command that made it makes it again"
OF_EMBEDDINGS = ("text/features", "image/projection")  # what a model keeps of the file of embeddings that it was trained on
IN_THE_FILE = "embeddings:"  # before their names


@dataclass(frozen=True)
class LearnedTask:
    """A task that the model has learned. folder: it was the user's own, in a folder so called; empty: one of the stream's."""

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
    embeddings: EmbeddingFile | None = None  # those that it was trained on in the place of images, without those of images
    places: Places = field(default_factory=lambda: Places(Path()))

    @property
    def n_learned(self) -> int:
        """Classes that it has learned: the first so many of the scenario's."""
        return 1 + max(c for task in self.tasks for c in task.classes)

    def write(self, folder: Path) -> None:
        """Into this folder, and beside it where the things lie that it names."""
        _, _, paths = self._portable()
        if known := {**self.places.known, **paths}:
            write_atomically(folder / PLACES, json.dumps(known, indent=1))
        sealed_file.write(folder / MODEL, *self._parts())

    def to_bytes(self) -> bytes:
        return sealed_file.to_bytes(*self._parts())

    def _parts(self) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
        portable, tasks, _ = self._portable()
        run = {name: value for name, value in portable.to_json().items() if name not in ("out", "keep_model")}
        facts = {
            "format": FORMAT,
            "bench": VERSION,
            "run_id": self.run.run_id,
            "run": run,
            "scenario": dataclasses.asdict(self.scenario),
            "templates": self.templates,
            "tasks": [dataclasses.asdict(task) for task in tasks],
            "weights_digest": self.weights_digest,
            "draws": self.draws,
            "made_from": self.made_from,
            **({"embeddings": _facts_of(self.embeddings)} if self.embeddings else {}),
        }
        return self.state | (_tensors_of(self.embeddings) if self.embeddings else {}), facts

    def _portable(self) -> tuple[Run, tuple[LearnedTask, ...], dict[str, str]]:
        """Run and tasks without paths, and these."""
        run, paths = places.taken_out(self.run)
        names = [places.name_of(places.of_task(index), task.folder, paths) for index, task in enumerate(self.tasks)]
        return run, tuple(replace(task, folder=name) for task, name in zip(self.tasks, names)), paths


def of_run(
    loaded: LoadedRun, method: "Method", stream: "Stream", weights_digest: str, made_from: dict[str, Any]
) -> KeptModel:
    """The method at the end of a run."""
    tasks = tuple(LearnedTask(task.name, task.classes) for task in stream.tasks)
    protocol, run = loaded.protocol, loaded.run
    if places.names_weights(run):
        run = replace(run, pretrained=str(Path(str(run.pretrained)).expanduser().absolute()))
    return KeptModel(
        run, stream.scenario, protocol.templates, tasks, weights_digest, protocol.known_as, made_from, method.state_dict(),
        protocol.embeddings,
    )  # fmt: skip


def _facts_of(file: EmbeddingFile) -> dict[str, Any]:
    return {"file": file.path.name, "digest": file.digest, "facts": dataclasses.asdict(file.facts), "shapes": file.shapes}


def _tensors_of(file: EmbeddingFile) -> "dict[str, torch.Tensor]":
    import torch

    return {f"{IN_THE_FILE}{name}": torch.from_numpy(file.array(name)) for name in OF_EMBEDDINGS if name in file}


def _embeddings(facts: Mapping[str, Any], state: "dict[str, torch.Tensor]") -> EmbeddingFile:
    """What `_facts_of` and `_tensors_of` have taken of a file; the tensors are taken out of the state."""
    said: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in facts["facts"].items()}
    shapes = {name: tuple(shape) for name, shape in facts["shapes"].items()}
    kept = {name: state.pop(f"{IN_THE_FILE}{name}").numpy() for name in OF_EMBEDDINGS if name in shapes}
    return EmbeddingFile(Path(facts["file"]), Facts(**said), facts["digest"], {}, shapes, (0, 0, 0), _kept=kept)


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
        model = KeptModel(
            embeddings=_embeddings(facts["embeddings"], state) if "embeddings" in facts else None,
            places=places.read(file.parent),
            run=Run.from_json({**facts["run"], "out": str(file.parent)}),
            scenario=_scenario(facts["scenario"]),
            templates=None if facts["templates"] is None else tuple(facts["templates"]),
            tasks=tuple(LearnedTask(**{**task, "classes": tuple(task["classes"])}) for task in facts["tasks"]),
            weights_digest=facts["weights_digest"],
            draws=facts["draws"],
            made_from=facts["made_from"],
            state=state,
        )
        run, tasks, paths = model._portable()  # the files of earlier versions held paths
    except (KeyError, TypeError, AttributeError) as error:  # whole, and with other facts than are looked for
        raise BenchError(f"{file}: kept by another version of the program ({one_line(error)}); {AGAIN}") from error
    known = {**paths, **model.places.known}
    return replace(model, run=run, tasks=tasks, places=replace(model.places, known=known))


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
