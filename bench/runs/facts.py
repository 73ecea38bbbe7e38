"""What a plan has to know of protocols, images, methods, weights and devices.

Protocols and images are asked for here: that needs no torch. The other questions (bench/runs/questions.py) need it, so they are
answered in this process only where torch is there already, or is going to be needed anyway; else by a helper process, once, and
answers that last are kept for the next command.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.runs import questions
from bench.runs.helper import Helper
from bench.runs.kept_answers import KeptAnswers
from bench.runs.questions import Answer, Question
from bench.runs.request import Request
from bench.streams import identity, names, reference_sources, sources
from bench.streams.identity import Images
from bench.streams.protocol import Protocol
from bench.system.digests import of_plain_data

MADE_HERE = {None, "mini", "imagenet-classes", "synthetic"}  # reference data that come with the package
Found = TypeVar("Found")


@dataclass(frozen=True)
class MethodFacts:
    """As much of a method as a plan needs."""

    version: str
    scenarios: Sequence[str]  # kinds of stream that it is defined for
    several_processes: bool = False  # may one run of it be divided over several?


@dataclass(frozen=True)
class AllMethods:
    """Those that can be imported, and a sentence for each that cannot."""

    names: Sequence[str]
    broken: Sequence[str]


@dataclass(frozen=True)
class ChosenSettings:
    """The hyper-parameters of a run."""

    settings: dict[str, Any]  # those that identify it
    overrides: str  # the changed ones, as records name them
    wanting: Sequence[str]  # those without a value that the method cannot run without
    needs: Sequence[str]  # of CLIP: see Method.needs
    on_embeddings: Mapping[str, str]  # with these it needs less


@dataclass(frozen=True)
class SearchFacts:
    """What a search for a method's settings begins with."""

    space: dict[str, Any]  # hyper-parameter -> what is tried for it, as plain data
    settings: dict[str, Any]  # all at present
    written: Sequence[str]  # those that a recipe has to hold, beside the searched ones


class Facts:
    """Use it as a context: on leaving, new answers are kept and the helper process ends.

    folders: where data sets lie and answers are kept; without them nothing is kept, and no image found. here: answer in this
    process, importing what that needs. What is asked twice is found out once: a plan takes one look at the world.
    """

    def __init__(self, folders: Folders | None = None, here: bool = False):
        self._folders = folders
        self._here = here or "torch" in sys.modules
        self._kept = KeptAnswers(folders.cache if folders else None)
        self._helper = Helper()
        self._found: dict[Any, Any] = {}

    def __enter__(self) -> "Facts":
        return self

    def __exit__(self, *error: object) -> None:
        self._helper.close()
        self._kept.write()

    # -- protocols and images -----------------------------------------------------------------------------------

    def protocol(self, name: str) -> Protocol:
        return self._once(("protocol", name), lambda: names.find(name))

    def words(self, protocol: str, order_seed: int) -> str:
        """The digest of the class names and prompts of a stream."""
        found = self.protocol(protocol)
        return self._once(("words", protocol, order_seed), lambda: identity.words_of_protocol(found, order_seed))

    def images(self, protocol: str, order_seed: int, limit_train: int | None, limit_test: int | None) -> Images | None:
        """The digests of a stream's images as they lie on disk now; None if some are not there."""
        found = self.protocol(protocol)
        return self._of_files(
            ("images", protocol, order_seed, limit_train, limit_test),
            lambda folders: identity.present(found, order_seed, folders, limit_train, limit_test),
        )

    def images_in_learning_order(
        self, protocol: str, order_seed: int, limit_train: int | None, limit_test: int | None
    ) -> str | None:
        """The one digest that manifests of earlier versions hold; None if some images are not there."""
        if self.images(protocol, order_seed, limit_train, limit_test) is None:
            return None  # nothing is downloaded for a plan
        found = self.protocol(protocol)
        return self._of_files(
            ("images in learning order", protocol, order_seed, limit_train, limit_test),
            lambda folders: identity.digest_in_learning_order(found, order_seed, folders, limit_train, limit_test),
        )

    def own_images(self, protocol: str, limit_train: int | None, limit_test: int | None) -> str:
        """The digest of a stream's images where its name says nothing about them, so that they identify its runs; else empty."""
        if self.protocol(protocol).content != "own":
            return ""
        found = self.images(protocol, 0, limit_train, limit_test)
        if found is None:
            raise BenchError(f"{protocol}: its images cannot be read; bench data check says what is wrong with a data set")
        return of_plain_data(found)

    def refuse_undivided(self, protocol: str, order_seed: int, synthetic: bool) -> None:
        """BenchError for a class that the validation part leaves without images, as far as data sets are there: nothing is
        downloaded for a plan, and the stream is refused when it is opened."""
        found = self.protocol(protocol)
        if found.validation:
            self._of_files(
                ("validation", protocol, order_seed, synthetic),
                lambda folders: sources.refuse_undivided(
                    found, order_seed, folders, synthetic, None if synthetic else sources.there(found, order_seed, folders)
                ),
            )

    def reference(self, images: str | None, sentences: str | None) -> dict[str, str] | None:
        """The digests of reference images and sentences as they are now; None where nothing can have changed."""
        if {images, sentences} <= MADE_HERE:
            return None
        return self._of_files(
            ("reference", images, sentences), lambda folders: reference_sources.digests(images, sentences, folders)
        )

    def _of_files(self, key: Any, find: Callable[[Folders], Found]) -> Found:
        def look() -> Found:
            if self._folders:
                return find(self._folders)
            with tempfile.TemporaryDirectory() as nothing:
                return find(Folders(Path(nothing), Path(nothing)))

        return self._once(key, look)

    # -- methods, weights, devices ------------------------------------------------------------------------------

    def method(self, name: str) -> MethodFacts:
        return MethodFacts(**self._ask(questions.OfMethod(name)))

    def methods(self) -> AllMethods:
        return AllMethods(**self._ask(questions.OfAllMethods()))

    def settings(
        self,
        method: str,
        protocol: str,
        changes: Sequence[tuple[str, str, str]],
        recipe: Mapping[str, tuple[Any, str]] = {},
    ) -> ChosenSettings:
        """Of a run; changes: (field, text, where it was given); recipe: what files say, field -> (value, where)."""
        of_files = tuple((field, _hashable(value), where) for field, (value, where) in recipe.items())
        return ChosenSettings(**self._ask(questions.OfSettings(method, protocol, tuple(changes), of_files)))

    def search(
        self, method: str, protocol: str, changes: Sequence[tuple[str, str, str]], given: Mapping[str, tuple[Any, str]]
    ) -> SearchFacts:
        """changes: as of `settings`; given: of a search file, field -> (plain form, where it stands)."""
        of_file = tuple((field, json.dumps(plain), where) for field, (plain, where) in given.items())
        return SearchFacts(**self._ask(questions.OfSearch(method, protocol, tuple(changes), of_file)))

    def weights(self, backbone: str, pretrained: str | None) -> str:
        """What tells these weights from others."""
        return self._ask(questions.OfWeights(backbone, pretrained))["identity"]

    def resolved(self, request: Request) -> Request:
        """The request with what "auto" means on this machine."""
        return replace(request, **self._ask(questions.OfDevice(request.device, request.precision)))

    def gpu_memory(self) -> int:
        """Bytes of this machine's GPU; 0 where there is none."""
        return self._ask(questions.OfGpuMemory())["bytes"]

    def _ask(self, question: Question) -> Answer:
        return self._once(question, lambda: self._kept.find(question) or self._answered(question))

    def _answered(self, question: Question) -> Answer:
        """From here or from the helper; either way as JSON keeps it, so that a plan is the same."""
        found = json.loads(json.dumps(question.answer())) if self._here else self._helper.ask(question)
        if question.lasts(found):
            self._kept.keep(question, found)
        return found

    def _once(self, key: Any, find: Callable[[], Found]) -> Found:
        if key not in self._found:
            self._found[key] = find()
        return self._found[key]


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
