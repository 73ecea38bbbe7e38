"""A kept model in use: `bench.load(RUN)` gives an object that classifies images.

    model = bench.load("results/mini60-6x10/coop/dda9d1dd782db4ec")
    model.predict(["cat.jpg", "dog.jpg"])                        # a class name for each, among the classes that it has learned
    model.scores(images, ["cat", "dog", "zebra"])                # (2, 3) logits, among any classes where the method can

It scores as the run's own evaluation did, through the same functions: on the run's test images, a task at a time and in their
order, it gives the same bits. Needed are the file of the model, the package with the method, and the backbone's weights: no data.
The model of a run on embeddings needs no weights either, and scores embeddings.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from bench.clip import backbone as backbones
from bench.clip.backbone import Backbone
from bench.clip.embedded import EmbeddedBackbone
from bench.errors import BenchError, RunFailure, one_line, unknown_name
from bench.images.folders import Folders
from bench.images.folders import chosen as chosen_folders
from bench.learning import evaluation
from bench.learning.method import Method
from bench.learning.more_classes import Counts, load_into
from bench.runs import assignments, kept_model
from bench.runs.earlier_images import learned_tasks
from bench.runs.kept_model import AGAIN, KeptModel
from bench.runs.places import WEIGHTS, names_weights, of_setting
from bench.streams.features import FeatureStore
from bench.streams.given_embeddings import GivenEmbeddings
from bench.streams.given_images import Given, GivenImages
from bench.streams.scenario import Scenario
from bench.streams.stream import Task
from bench.system import method_classes, named_files, registry
from bench.system.method_source import Source
from bench.system.randomness import Draws

Classes = Literal["seen", "all"] | Sequence[str]  # those it has learned, all of its stream, or these names
TEMPLATES = ("a photo of a {}.",)  # for new names, where the classes of the stream do not all have the same
FORMER_CACHE = 4  # sets of new names whose models are kept ready


class TrainedModel:
    """A method after its last task, ready to score images. `bench.load` makes it; nothing in it changes afterwards."""

    def __init__(self, kept: KeptModel, backbone: Backbone, kind: type[Method], folders: Folders):
        self._kept, self._backbone, self._kind = kept, backbone, kind
        self._tasks = learned_tasks(kept, FeatureStore(backbone, folders.features), folders)
        self._method = self._built(kept.scenario)
        self._with_names = functools.lru_cache(maxsize=FORMER_CACHE)(self._built_with_names)

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def method(self) -> str:
        """The name of the method."""
        return self._kept.run.method

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of all classes of the stream, in the order in which they are learned."""
        return self._kept.scenario.class_names

    @property
    def seen_names(self) -> tuple[str, ...]:
        """The names of those that it has learned: the first of `class_names`, all of them at the end of a stream."""
        return self.class_names[: self._kept.n_learned]

    @property
    def scores_depend_on_batch(self) -> bool:
        """Does the score of an image depend on the others that are given with it? See `scores`."""
        return self._method.test_batches is not None

    @property
    def reads_embeddings(self) -> bool:
        """Was it trained on embeddings in the place of images? Then it scores embeddings, too, and no images."""
        return isinstance(self._backbone, EmbeddedBackbone)

    # -- what it does -------------------------------------------------------------------------------------------

    def predict(self, images: Given, classes: Classes = "seen", tasks: Sequence[int] | None = None) -> list[str]:
        """The name of the best class of each image; images, classes and tasks as `scores` takes them."""
        chosen = self.chosen(classes)
        best = self.best(self.scores(images, classes, tasks), classes, 1)
        return [chosen[columns[0]] for columns in best]

    def scores(self, images: Given, classes: Classes = "seen", tasks: Sequence[int] | None = None) -> torch.Tensor:
        """(n, len(classes)) logits on the CPU, larger is better; a softmax over the classes makes probabilities of them.

        images: paths, PIL images or uint8 arrays (height, width, 3), one or several of them; or a tensor (n, 3, size, size) of
        preprocessed pixels, as `preprocess` gives them. Those of files and PIL images are turned as their camera says. For a
        model that was trained on embeddings: an array or a tensor (n, width) of them, the path of such an array, FILE.npy, or
        that of a file of embeddings, whose test images are taken.

        classes: "seen", those that it has learned; "all", all of its stream; or names, in any order, for the columns. Names
        that its stream did not have can be scored by methods that read names: BenchError says why another one cannot.

        tasks: for methods whose scores depend on the other images of the batch (`scores_depend_on_batch`), the task from which
        each image comes: batches are made up from it as the run's evaluation made them up. Without it all come from one. Images
        of a task are scored in their order; for other methods it only decides which images go through the method together.
        """
        names = self.chosen(classes)
        given = self._given(images)
        method, positions = self._for(names, classes)
        groups = _groups(len(given), tasks)
        ascending = sorted(set(positions))
        with threads_of(self._kept):
            found = evaluation.scores(method, [given.part(rows) for rows in groups], len(self._kept.tasks), ascending)
        together = torch.zeros(len(given), len(ascending))
        for rows, part in zip(groups, found):
            together[rows] = part
        if not bool(torch.isfinite(together).all()):
            raise BenchError(f"{self.method}: the kept model gives scores that are not finite")
        return together[:, [ascending.index(c) for c in positions]]

    def best(self, scores: torch.Tensor, classes: Classes = "seen", top: int = 5) -> list[list[int]]:
        """For each image the columns of its `top` best classes, the best first; of equal ones the first, as evaluated."""
        method, positions = self._for(self.chosen(classes), classes)
        first = scores.argmax(dim=-1)
        if method.scenario.kind == "task-agnostic":
            first, _ = evaluation.first_of_equals(scores, torch.tensor(method.scenario.namesakes())[torch.tensor(positions)])
        ranked = scores.argsort(dim=-1, descending=True, stable=True).tolist()
        return [[one, *(k for k in row if k != one)][:top] for one, row in zip(first.tolist(), ranked)]

    def preprocess(self, images: Given) -> torch.Tensor:
        """(n, 3, size, size) pixels on the backbone's device, as methods get them."""
        if self.reads_embeddings:
            raise BenchError(f"this model of {self.method} was trained on embeddings, and takes them as they are")
        given = GivenImages(images, self._backbone)
        return given.pixels(torch.arange(len(given)))

    def chosen(self, classes: Classes) -> tuple[str, ...]:
        """The names of the columns of `scores`."""
        if isinstance(classes, str):
            if classes not in ("seen", "all"):
                raise BenchError(f"classes={classes!r}: write 'seen', 'all' or a list of names")
            return self.seen_names if classes == "seen" else self.class_names
        if not classes or not all(isinstance(name, str) and name.strip() for name in classes):
            raise BenchError("classes: a list of at least one name is wanted, none of them empty")
        return tuple(classes)

    # -- how ----------------------------------------------------------------------------------------------------

    def _given(self, images: Given) -> GivenImages | GivenEmbeddings:
        if isinstance(self._backbone, EmbeddedBackbone):
            return GivenEmbeddings(images, self._backbone, self._method.inputs)
        return GivenImages(images, self._backbone)

    def _for(self, names: tuple[str, ...], classes: Classes) -> tuple[Method, list[int]]:
        """The method that can score these names, and their positions in its stream."""
        if isinstance(classes, str):
            positions = list(range(len(names)))
            self._refuse_unlearned(names, positions)
            return self._method, positions
        new = tuple(dict.fromkeys(name for name in names if name not in self.class_names))
        method = self._with_names(new) if new else self._method
        positions = [self._position(name, method.scenario) for name in names]
        self._refuse_unlearned(names, positions)
        return method, positions

    def _position(self, name: str, scenario: Scenario) -> int:
        places = [c for c, known in enumerate(scenario.class_names) if known == name]
        if len(places) > 1 and not len({scenario.namesakes()[c] for c in places}) == 1:
            raise BenchError(f"{name!r} names {len(places)} classes of the stream, with different prompts: score 'seen' or 'all'")
        return places[0]

    def _refuse_unlearned(self, names: Sequence[str], positions: Sequence[int]) -> None:
        unlearned = [name for name, c in zip(names, positions) if c >= self._kept.n_learned]
        if unlearned and not self._kind.zero_shot:
            some = ", ".join(unlearned[:3]) + (", ..." if len(unlearned) > 3 else "")
            close = unknown_name("class", unlearned[0], self.seen_names) if len(unlearned) == 1 else None
            hint = f" ({close})" if close and "did you mean" in str(close) else ""
            raise BenchError(
                f"{self.method} scores only classes that it has learned from images, and {some} is none of them{hint}; "
                "'seen' names those that are"
            )

    def _built_with_names(self, new: tuple[str, ...]) -> Method:
        if not self._kind.zero_shot:
            self._refuse_unlearned(new, [len(self.class_names)] * len(new))
        if self._kind.cannot_add_names:
            why = self._kind.cannot_add_names
            raise BenchError(f"{self.method} cannot score {new[0]!r}, which its stream did not have: {why}")
        scenario = self._kept.scenario
        shared = self._kept.templates or (scenario.templates[0] if len(set(scenario.templates)) == 1 else TEMPLATES)
        return self._built(kept_model.with_classes(scenario, new, shared))

    def _built(self, scenario: Scenario) -> Method:
        return build(self._kept, self._backbone, self._kind, scenario, self._tasks)


def load(
    run: str | Path, device: str | None = None, folders: Folders | None = None, method: str | type[Method] | None = None
) -> TrainedModel:
    """The kept model of a run, ready to classify images.

    run: the folder of the run, or of what `bench learn` has written, or a results folder with one kept model in it.
    device: cpu, cuda or cuda:N; without it the kind that the run was made on, where there is one.
    folders: of data sets and of what is kept, for a method that goes back to images of the tasks it has learned.
    method: the class, or FILE.py:CLASS, of a method that no package brings, where it does not lie where the model was made.

    BenchError in one line where no model was kept, its file is damaged, or the method or the weights are not those that it was
    trained with.
    """
    kept = kept_model.read(Path(run))
    kind = kind_of(kept, method)
    return TrainedModel(kept, backbone_of(kept, device), kind, folders or _folders())


def _folders() -> Folders:
    """Those that a command takes where none is named."""
    data, cache = (os.environ.get(name) for name in ("BENCH_DATA", "BENCH_CACHE"))
    return chosen_folders(Path(data) if data else None, Path(cache) if cache else None)


def kind_of(kept: KeptModel, method: str | type[Method] | None = None) -> type[Method]:
    """The class of the method; BenchError if it is of another version. Where its code has changed, a note says so.

    method: its class, or FILE.py:CLASS; None: the one that the model was trained by, where it lay.
    """
    given = _method_given(kept, method)
    kind: type[Method] = registry.load("method", given)
    if kind.version != kept.run.method_version:
        raise BenchError(
            f"kept model of {kept.run.method}: it was trained by version {kept.run.method_version} of the method, version "
            f"{kind.version} is here; {AGAIN}"
        )
    since = Source.from_json(kept.made_from.get("source"))
    if since and (modules := registry.changes_since(given, since)):
        said = f"{', '.join(modules[:5])}{', ...' if len(modules) > 5 else ''}"
        print(f"note: the model was trained by other code of {kept.run.method} ({said}); scores may differ", file=sys.stderr)
    return kind


def _method_given(kept: KeptModel, method: str | type[Method] | None) -> str:
    """How the registry finds the method of a kept model; BenchError if it is not here, or another one was named."""
    run = kept.run
    if method is not None:
        given = method if isinstance(method, str) else method_classes.given(method)
        if (name := registry.name_of(given)) != run.method:
            raise BenchError(f"{given} is called {name!r}, and the kept model is one of {run.method!r}")
        return given
    if not run.method_from:
        return run.method
    if found := kept.places.method():
        return found
    if run.method_from.startswith("<"):  # a class of a notebook, which only this process can know
        return run.method_from
    raise BenchError(
        f"kept model of {run.method}: its method is in a file, {run.method_from}, that is not where it was; name it: --method "
        f"FILE.py:{run.method_from.rpartition(':')[2]}, or method= in bench.load"
    )


def backbone_of(kept: KeptModel, device: str | None = None) -> Backbone:
    """The backbone with the very weights that the model was trained with."""
    run = kept.run
    chosen = backbones.resolve_device(device) if device else run.device
    precision = run.precision
    if not device and chosen.startswith("cuda") and not torch.cuda.is_available():
        print("note: the model was trained on a GPU, and none is here: scores on the CPU differ by rounding", file=sys.stderr)
        chosen = "cpu"
    if chosen.split(":")[0] != run.device.split(":")[0]:
        precision = "auto"
    if kept.embeddings:
        return EmbeddedBackbone(kept.embeddings, chosen)
    pretrained = run.pretrained
    if names_weights(run):
        pretrained = str(kept.places.file(WEIGHTS, str(pretrained), f"weights of {run.backbone} that it was trained with"))
    backbone = backbones.load(run.backbone, pretrained, chosen, precision)
    if backbone.digest != kept.weights_digest:
        raise BenchError(
            f"kept model of {run.method}: it was trained on other weights of {run.backbone} ({kept.weights_digest[:8]}) than "
            f"{run.pretrained or 'those of the package'} has now ({backbone.digest[:8]}); put the former ones there"
        )
    return backbone


def build(kept: KeptModel, backbone: Backbone, kind: type[Method], scenario: Scenario, tasks: Sequence[Task]) -> Method:
    """The method with its kept state, for a stream that may have become longer; BenchError if the state does not fit it.

    tasks: those that were learned; their images are asked for only by methods that need them.
    """
    run = kept.run
    settings = assignments.restored(kind.Settings, _with_files(kept))
    try:
        method = kind(settings, backbone, scenario, Draws(kept.draws, run.method, run.seed))
        for task in tasks:
            method.grow(task)
        load_into(method, kept.state, Counts.of(kept.scenario))
    except (RuntimeError, AttributeError, LookupError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise BenchError(f"kept model of {run.method}: it does not fit the method ({one_line(error)}); {AGAIN}") from error
    except (ValueError, RunFailure) as error:
        raise BenchError(f"kept model of {run.method}: {one_line(error)}") from error
    return method.to(backbone.device).eval()


def _with_files(kept: KeptModel) -> dict[str, Any]:
    """The settings, with the places of the files that they name; BenchError for one that is missing or has changed."""
    found = dict(kept.run.settings)
    for name, value in found.items():
        if named_files.is_file(value):
            needed = f"the file of its setting {name}"
            file = kept.places.file(of_setting(name), value["path"], needed)
            found[name] = named_files.with_digest(name, str(file))
            if found[name]["sha256"] != value["sha256"]:
                raise BenchError(f"{file}: {needed} is another one than the model was trained with; put the former one there")
    return found


@contextlib.contextmanager
def threads_of(kept: KeptModel) -> Iterator[None]:
    """As many CPU threads as the run had, as far as there are cores: with another number sums round otherwise."""
    wanted = (kept.made_from.get("environment") or {}).get("threads")
    before = torch.get_num_threads()
    try:
        if isinstance(wanted, int) and 1 <= wanted <= (os.cpu_count() or 1):
            torch.set_num_threads(wanted)
        yield
    finally:
        torch.set_num_threads(before)


def _groups(n: int, tasks: Sequence[int] | None) -> list[torch.Tensor]:
    """The rows of the images of task 0, 1, ..."""
    if tasks is None:
        return [torch.arange(n)]
    of_image = torch.as_tensor(list(tasks), dtype=torch.long)
    if len(of_image) != n or (n and int(of_image.min()) < 0):
        raise BenchError(f"tasks: one whole number from 0 for each of the {n} images is wanted")
    return [torch.nonzero(of_image == task).flatten() for task in range(int(of_image.max()) + 1 if n else 0)]
