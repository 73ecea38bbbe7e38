"""The one interface that a learner implements.

A method is a file with a dataclass of hyper-parameters and a class:

    @dataclass(frozen=True)
    class NearestMeanSettings:
        scale: float = setting(100.0, "factor on the cosines", source="CLIP")

    class NearestMean(Method):
        '''Nearest class mean.'''
        Settings = NearestMeanSettings
        paper = "..."
        trains = "nothing; keeps one mean per class"
        zero_shot = False                     # it cannot score classes that it has not learned

        def prepare(self):                    # create parameters and buffers
            self.register_buffer("means", torch.zeros(len(self.scenario.class_names), self.backbone.embedding_width))

        def learn(self, task):                # train on one task
            ...

        def logits(self, batch, classes):     # score a batch for any list of classes
            ...

and one line under `bench.methods` in setup.cfg: `nearest-mean = methods.nearest_mean:NearestMean`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch

from bench.clip.backbone import Backbone
from bench.errors import RunFailure
from bench.learning import recipes
from bench.learning.settings import NoSettings
from bench.learning.settings import setting as setting  # methods import it from here
from bench.learning.test_batches import TestBatches
from bench.streams.reference import Reference
from bench.streams.reference_sources import ReferenceNames
from bench.streams.scenario import Scenario, ScenarioKind
from bench.streams.stream import Task
from bench.system import progress
from bench.system.processes import ALONE, Processes
from bench.system.randomness import Draws


class Method(torch.nn.Module):
    """A learner. All of its state is parameters and buffers, so that checkpoint and resume come for free."""

    Settings: ClassVar[type[Any]] = NoSettings
    name: ClassVar[str] = ""  # of a method that is not registered: how results call it; "": made from the class's name
    version: ClassVar[str] = "1"  # bumped when a change of the code moves numbers: old results are then run again
    recipes: ClassVar[dict[str, dict[str, Any]]] = {}  # protocol pattern -> settings that differ there; later ones win
    quick: ClassVar[dict[str, Any]] = {}  # settings that shorten training for `bench check`; no promise depends on them
    paper: ClassVar[str] = ""  # title, authors, venue, arXiv id
    trains: ClassVar[str] = ""  # what is trained and what stays frozen
    conformance: ClassVar[str] = ""  # what has been compared with its authors' code, and what has not
    inputs: Literal["features", "pooled", "pixels"] = "features"  # what `logits` is given; a setting may decide it in `prepare`
    zero_shot: ClassVar[bool] = True  # can it score classes that it has not learned?
    scores_depend_on_list: ClassVar[bool] = False  # on the classes asked for; then each set of candidates is scored by itself
    on_embeddings: ClassVar[dict[str, Any]] = {}  # settings with which it needs less of CLIP, where a file lacks what it needs
    joint: ClassVar[bool] = False  # upper bound: learns all tasks at once, evaluated after the last only
    # taught one more task, does a kept model equal a run that knew of that task from the start? See docs/trained-models.md
    continues_as_one_run: ClassVar[bool] = True
    cannot_continue: ClassVar[str] = ""  # why a kept model cannot learn one more task; empty: it can
    cannot_add_names: ClassVar[str] = ""  # why one that scores unlearned classes cannot score names that its stream did not have
    # may one run of it be divided over several processes (bench/system/processes.py)? Then its loop encodes this process's part
    # of a batch, gathers the features of all parts, and adds up the gradients. A class that extends a built-in one says it anew
    several_processes: ClassVar[bool] = False
    # task-agnostic counts only where unlearned classes are scored, or all tasks are learned at once (bench/learning/stated.py)
    scenarios: ClassVar[tuple[ScenarioKind, ...]] = ("class-incremental", "task-incremental", "task-agnostic")

    def __init__(self, settings: Any, backbone: Backbone, scenario: Scenario, draws: Draws):
        super().__init__()
        self.settings = settings
        self.backbone = backbone  # frozen and shared: not part of this module's state
        self.scenario = scenario
        self.draws = draws
        self.processes: Processes = ALONE  # those that carry out the run; the runner puts in others before the first task
        self.prepare()
        self.to(backbone.device)

    # -- what a method implements -------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create parameters and buffers. Before any `learn`, `logits` should already answer (zero-shot)."""

    def grow(self, task: Task) -> None:
        """Add the modules that this task needs. Called before `learn`, and on resume for every finished task."""

    def learn(self, task: Task) -> None:
        """Train on one task. Only `task.train` may be used; `task.test` is sealed."""
        raise TypeError(f"{type(self).__name__} does not define learn(task)")

    def logits(self, batch: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """(b, len(classes)) scores of a batch of features or pixels, for any classes: learned or not, in any order."""
        raise TypeError(f"{type(self).__name__} does not define logits(batch, classes)")

    @property
    def needs(self) -> tuple[str, ...]:
        """What it needs of CLIP, which decides whether it runs on embeddings alone (docs/embeddings.md).

        "features", "pooled": embeddings of images, after or before the projection. "texts": those of the scenario's prompts.
        "projection": the matrix between the first two. "towers": anything else, so that it needs CLIP itself: pixels, other
        views or texts, tokens, gradients through a tower. Asked before the method exists: settings alone decide. A class may
        state it as an attribute, needs = ("features", "texts"). `bench check` tries whether it is true.
        """
        return ("towers",)

    @property
    def other_towers(self) -> tuple[str, ...]:
        """Names of pretrained towers beside the backbone. Records name them with it, and tables never mix them with others."""
        return ()

    @property
    def test_batches(self) -> TestBatches | None:
        """Which test images `logits` gets together. None: a score never depends on the other images of its batch."""
        return None

    @property
    def reference_names(self) -> ReferenceNames | None:
        """The reference data (images and sentences of no task) that the method distils on; None: none."""
        return None

    def use_reference(self, reference: Reference) -> None:
        """Receive them, before the first task and after a resume."""

    def classes_added(self, new: Sequence[int]) -> None:
        """The stream has got these classes after the state was kept, which is loaded: bring up to date what depends on them.

        Rows of the state by class or by task have those of `prepare` for the new ones. To do is what training has changed
        about classes that are not learned: their text features by a trained text tower, say.
        """

    def exemplar_bytes(self) -> int:
        """Bytes of stored training data (images or features), for the cost columns; "-" there where a plug-in does not say."""
        return 0

    # -- what it gets -------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    def check_finite(self, loss: torch.Tensor, what: str) -> None:
        """Stop this run, with a clear reason, when a loss is not a number."""
        if not bool(torch.isfinite(loss.detach()).all()):
            raise RunFailure(f"{what}: the loss is not finite; a smaller learning rate is the usual remedy")

    def note_loss(self, loss: torch.Tensor) -> None:
        """After a step of a training loop of one's own: the loss goes into the run's log.csv, and is shown while the run goes on.
        Nothing is read from a GPU for it. `methods.shared.descent.Descent` does it by itself."""
        progress.step(loss)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's, but a parameter or buffer that has grown since `prepare` takes the stored shape."""
        own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        for name, stored in state_dict.items():
            if name in own and own[name].shape != stored.shape:
                own[name].data = torch.empty_like(stored, device=own[name].device)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    @classmethod
    def settings_for(cls, protocol: str, overrides: dict[str, Any] | None = None) -> Any:
        """The hyper-parameters of a run: defaults, then this protocol's recipe, then the user's overrides.

        The recipe is what the class says for the protocol, and above it what was tuned on validation, where that ships. A stream
        with a validation part, or cut to its first tasks, has the recipe of the whole one: what is chosen there is run here.
        """
        values: dict[str, Any] = {}
        for pattern, recipe in cls.recipes.items():
            if recipes.fits(protocol, pattern):
                values.update(recipe)
        values.update(recipes.shipped_settings(cls, cls.Settings, protocol))
        return cls.Settings(**{**values, **(overrides or {})})

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0] if (cls.__doc__ or "").strip() else cls.__name__
