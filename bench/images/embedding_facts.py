"""What a file of embeddings says of itself: the metadata of the safetensors file, which are texts under names."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.errors import BenchError, printable
from bench.images import class_names

TEMPLATE = "a photo of a {}."  # where a file says nothing and has no text
PAGE = "docs/embeddings.md"


@dataclass(frozen=True)
class Facts:
    """The metadata of a file."""

    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    backbone: str
    weights: str  # as records name them
    logit_scale: float | None  # what cosines are multiplied by: 100 for OpenAI's models; None: not stated
    dataset: str  # whose images these are; "": not stated
    normalised: bool | None  # are image embeddings of unit length; None: not stated
    repeated_names: tuple[str, ...] = ()  # that the official list of classes has twice

    def metadata(self) -> dict[str, str]:
        """As they stand in a file; what is not known is not there."""
        lists = ("class_names", "templates", *(["repeated_names"] if self.repeated_names else []))
        said = {name: json.dumps(list(getattr(self, name)), ensure_ascii=False) for name in lists}
        said |= {"backbone": self.backbone, "weights": self.weights}
        said |= {"logit_scale": repr(self.logit_scale)} if self.logit_scale is not None else {}
        said |= {"dataset": self.dataset} if self.dataset else {}
        return said | ({"normalised": json.dumps(self.normalised)} if self.normalised is not None else {})


def facts_of(metadata: Mapping[str, str], wrong: Callable[[str], BenchError], with_text: bool) -> Facts:
    """The metadata as facts. wrong: makes the error of a sentence; with_text: there are text embeddings, too."""
    if not metadata:
        raise wrong(f"has no metadata; class_names, backbone and weights are wanted ({PAGE})")
    if missing := [name for name in ("class_names", "backbone", "weights") if name not in metadata]:
        raise wrong(f"its metadata have no {', '.join(missing)} ({PAGE})")
    for name in ("templates", "logit_scale") if with_text else ():
        if name not in metadata:
            raise wrong(f"has text/features, and its metadata have no {name} ({PAGE})")
    return _Reading(metadata, wrong).facts()


@dataclass(frozen=True)
class _Reading:
    metadata: Mapping[str, str]
    wrong: Callable[[str], BenchError]

    def facts(self) -> Facts:
        names = self.texts("class_names")
        repeated = self.texts("repeated_names") if "repeated_names" in self.metadata else ()
        if len(names) < 2:
            raise self.wrong(f"class_names: {len(names)}; a stream needs at least two classes")
        for name in names:
            if not class_names.as_tokenized(name):
                raise self.wrong(f"class_names: there is no word in {name!r}")
        for one, other in class_names.unexpected(names, repeated):
            both = f"{names[one]!r} (label {one}) and {names[other]!r} (label {other})"
            raise self.wrong(f"class_names: {both} make the same prompt")
        templates = self.texts("templates") if "templates" in self.metadata else (TEMPLATE,)
        for template in templates:
            if not _makes_a_prompt(template):
                raise self.wrong(f"templates: {template!r} has not one {{}} for the name of a class")
        if not templates or len(set(templates)) < len(templates):
            raise self.wrong("templates: at least one is wanted, each once")
        words = {name: self.word(name) for name in ("backbone", "weights")}
        dataset = self.word("dataset") if "dataset" in self.metadata else ""
        return Facts(names, templates, **words, logit_scale=self.logit_scale(), dataset=dataset,
                     normalised=self.normalised(), repeated_names=repeated)  # fmt: skip

    def texts(self, name: str) -> tuple[str, ...]:
        try:
            found = json.loads(self.metadata[name])
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or not all(isinstance(one, str) and one and printable(one) == one for one in found):
            raise self.wrong(f'{name}: a JSON list of texts without control characters is wanted: json.dumps(["apple", "pear"])')
        return tuple(found)

    def word(self, name: str) -> str:
        text = self.metadata[name]
        if not text or printable(text) != text or "/" in text:
            raise self.wrong(f"{name}: {printable(text)!r} in the metadata; a name without slashes is wanted (openai)")
        return text

    def logit_scale(self) -> float | None:
        text = self.metadata.get("logit_scale")
        if text is None:
            return None
        try:
            scale = float(text)
        except ValueError:
            scale = 0.0
        if not 0 < scale < float("inf"):
            raise self.wrong(f"logit_scale: {printable(text)!r} in the metadata; a positive number is wanted (100.0)")
        return scale

    def normalised(self) -> bool | None:
        text = self.metadata.get("normalised", self.metadata.get("normalized"))
        if text is not None and text.lower() not in ("true", "false"):
            raise self.wrong(f"normalised: {printable(text)!r} in the metadata; true or false is wanted")
        return None if text is None else text.lower() == "true"


def _makes_a_prompt(template: str) -> bool:
    """
    >>> _makes_a_prompt("a {}."), _makes_a_prompt("a {x} {}"), _makes_a_prompt("none")
    (True, False, False)
    """
    try:
        return template.count("{}") == 1 and template.format("x") == template.replace("{}", "x")
    except (ValueError, LookupError, AttributeError):
        return False
