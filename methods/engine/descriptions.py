"""A user's descriptions of classes, each said of one class in comparison with another, and their text features."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from bench import Backbone, BenchError, Scenario
from methods.shared.user_files import read_object, sentences


class Description(NamedTuple):
    other: str  # the class that is compared with; the class itself where nothing is
    text: str


class Descriptions:
    """{class: {other class: [sentences]}} from a JSON file, and the features of "{class} with {sentence in lower case}".

    Classes are known by their names, so classes of one name (data sets of a stream may share some) have the same sentences.
    Names in the file that are in no task do no harm: their comparisons are sentences like others. Text features come from the
    frozen tower, are computed once, class by class, and are no part of what is stored between tasks.
    """

    def __init__(self, path: str, scenario: Scenario, backbone: Backbone):
        self.path, self.names, self.backbone = path, scenario.class_names, backbone
        found = read_object(path, "descriptions")
        self.of_name: dict[str, list[Description]] = {}
        for name in dict.fromkeys(self.names):
            if name not in found:
                raise BenchError(f"{path}: there are no descriptions of the class {name!r}")
            if not isinstance(found[name], dict):
                raise BenchError(f"{path}: for {name!r} an object is wanted, from another class's name to a list of sentences")
            self.of_name[name] = [
                Description(other, text)
                for other, texts in found[name].items()
                for text in sentences(texts, f"{path}: {name!r} against {other!r}")
            ]
            if not self.of_name[name]:
                raise BenchError(f"{path}: there are no descriptions of the class {name!r}")
        self._places: dict[str, dict[str, list[int]]] = {}  # class -> other class -> places among the descriptions
        for name, own in self.of_name.items():
            by_other = self._places.setdefault(name, {})
            for place, description in enumerate(own):
                by_other.setdefault(description.other, []).append(place)
        self._features: dict[str, torch.Tensor] = {}

    def check_pairs(self) -> None:
        """BenchError unless every class of the stream is described against every other one."""
        for name, others in self._places.items():
            missing = [other for other in self._places if other != name and other not in others]
            if missing:
                raise BenchError(f"{self.path}: no description of {name!r} against {missing[0]!r}, which re-ranking needs")

    def check_seen(self, tasks: Sequence[int]) -> None:
        """BenchError unless every class, when its task comes, has a description against a class seen by then.

        tasks: of each class of the stream, the one that adds it.
        """
        for place, name in enumerate(self.names):
            seen = {other for other, task in zip(self.names, tasks) if task <= tasks[place]}
            if not self.pool(place, seen):
                raise BenchError(f"{self.path}: no description of {name!r} against a class seen by then")

    def pool(self, c: int, seen: set[str] | None = None) -> list[int]:
        """The places, among the descriptions of class c, of those that may be used: against classes seen, or all."""
        lists = [places for other, places in self._places[self.names[c]].items() if seen is None or other in seen]
        return [place for places in lists for place in places]

    def against(self, c: int, other: int) -> list[int]:
        """The places of those of class c against another one; none where both have one name."""
        if self.names[c] == self.names[other]:
            return []
        return self._places[self.names[c]].get(self.names[other], [])

    def features(self, c: int) -> torch.Tensor:
        """(descriptions of class c, D) raw text features."""
        name = self.names[c]
        if name not in self._features:
            texts = [f"{name} with {description.text.lower()}" for description in self.of_name[name]]
            self._features[name] = self.backbone.encode_text(texts)
        return self._features[name]
