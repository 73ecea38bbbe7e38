"""What methods, protocols, weights and devices say about themselves, without importing them (or torch) here.

Methods are torch modules, so only a process with torch can ask one for its settings. A helper process does, once: its
answers are kept in the cache folder, in a file that is named after a digest of all sources the answers come from (the
packages that register something, bench itself, the versions of torch and open_clip). Where torch is there already, or
is going to be needed anyway, the question is answered in this process.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.images.folders import as_text, chosen
from bench.streams import identity as stream_identity
from bench.system import registry
from bench.system.files import write_atomically

MADE_HERE = {None, "mini", "imagenet-classes", "synthetic"}  # reference data that come with the package
SMALL = 1 << 20  # bytes; larger files (weights) count with their size and time of change
KEPT = 8  # files of answers: several environments may share a cache folder


class Facts:
    """Answers to questions about registered things. Use it as a context: on leaving, new answers are kept.

    cache: the folder for answers; None keeps nothing. here: answer in this process, importing what that needs. data: where
    data sets lie; without it nothing is known of their images.
    """

    def __init__(self, cache: Path | None = None, here: bool = False, data: Path | None = None):
        self.data, self.cache, self.path = data, cache, None
        with contextlib.suppress(BenchError):  # a machine without a home folder: nothing is kept
            self.path = cache / "facts" / f"{_sources_digest()}.json" if cache else None
        self.here = here or "torch" in sys.modules
        self.known = _read(self.path)
        self.new: dict[str, Any] = {}
        self.asked: dict[str, Any] = {}  # answers that may differ next time
        self._helper: subprocess.Popen | None = None

    def __enter__(self) -> "Facts":
        return self

    def __exit__(self, *error) -> None:
        if self._helper:
            self._helper.stdin.close()
            self._helper.wait()
        if self.path and self.new:
            try:
                write_atomically(self.path, json.dumps(_read(self.path) | self.new))
                _prune(self.path)
            except OSError:
                pass  # a cache folder that cannot be written makes plans slower, not wrong

    def protocol(self, name: str) -> dict[str, Any]:
        """Canonical name, version, kind, whether its order is fixed, and what its name says about its images."""
        return self._ask("protocol", name, lasts=_is_plain(name))

    def tasks(self, protocol: str, order_seed: int) -> int:
        """The number of tasks; an order seed that the order does not have is refused."""
        return self._ask("tasks", protocol, order_seed, lasts=_is_plain(protocol))

    def words(self, protocol: str, order_seed: int) -> str:
        """The digest of the class names and prompts of a stream."""
        return self._ask("words", protocol, order_seed, lasts=_is_plain(protocol))

    def images(
        self, protocol: str, order_seed: int, limit_train: int | None, limit_test: int | None
    ) -> dict[str, dict[str, str]] | None:
        """The digests of a stream's images as they lie on disk now; None if some are not there."""
        return self._of_files("images", protocol, order_seed, limit_train, limit_test)

    def images_in_learning_order(
        self, protocol: str, order_seed: int, limit_train: int | None, limit_test: int | None
    ) -> str | None:
        """The one digest that manifests of earlier versions hold; None if some images are not there."""
        return self._of_files("images_in_learning_order", protocol, order_seed, limit_train, limit_test)

    def own_images(self, protocol: str, content: str, limit_train: int | None, limit_test: int | None) -> str:
        """The digest of a stream's images where its name says nothing about them, so that they identify its runs; else empty."""
        if content != "own":
            return ""
        found = self.images(protocol, 0, limit_train, limit_test)
        if found is None:
            raise BenchError(f"{protocol}: its images cannot be read; bench data check says what is wrong with a data set")
        return stream_identity.digest(found)

    def reference(self, images: str | None, sentences: str | None) -> dict[str, str] | None:
        """The digests of reference images and sentences as they are now; None where nothing can have changed, or is not there."""
        if {images, sentences} <= MADE_HERE:
            return None
        return self._of_files("reference", images, sentences)

    def _of_files(self, about: str, *rest: Any) -> Any:
        if self.data and self.cache:
            return self._ask(about, [as_text(self.data), as_text(self.cache)], *rest, lasts=False)
        with tempfile.TemporaryDirectory() as nothing_kept:
            return self._ask(about, [nothing_kept, nothing_kept], *rest, lasts=False)

    def method(self, name: str) -> dict[str, Any]:
        """Version and scenarios."""
        return self._ask("method", name)

    def methods(self) -> tuple[list[str], list[str]]:
        """The names of all methods that can be imported, and one sentence for each that cannot."""
        return tuple(self._ask("methods", lasts=lambda found: not found[1]))

    def settings(self, method: str, protocol: str, changes: Sequence[Sequence[str]]) -> dict[str, Any]:
        """All hyper-parameters of a run, and the changed ones as records name them; changes: (field, text, where given)."""
        return self._ask("settings", method, protocol, [list(change) for change in changes])

    def weights(self, backbone: str, pretrained: str | None) -> str:
        """What tells these weights from others; files may change, tags and the package's own weights do not."""
        return self._ask(
            "weights", backbone, pretrained, lasts=lambda found: not pretrained or found == f"{backbone}:{pretrained}"
        )

    def device(self, device: str, precision: str) -> tuple[str, str]:
        """Device and precision with "auto" resolved on this machine."""
        return tuple(self._ask("device", device, precision, _hardware()))

    def _ask(self, *question: Any, lasts: Any = None) -> Any:
        """lasts: False or a function of the answer, where an answer may be another one next time."""
        key = json.dumps(question)
        for answers in (self.new, self.asked, self.known):
            if key in answers:
                return answers[key]
        found = json.loads(json.dumps(answer(question) if self.here else self._helped(key)))
        keep = lasts(found) if callable(lasts) else lasts is not False
        (self.new if keep else self.asked)[key] = found
        return found

    def _helped(self, key: str) -> Any:
        if self._helper is None:
            self._helper = subprocess.Popen(
                [sys.executable, "-m", "bench.runs.facts"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        try:
            print(key, file=self._helper.stdin, flush=True)
            found = json.loads(self._helper.stdout.readline())
        except (OSError, ValueError) as error:
            raise BenchError("the process that asks methods for their settings has ended; its last lines are above") from error
        if "error" in found:
            raise BenchError(found["error"])
        return found["answer"]


def answer(question: Sequence[Any]) -> Any:
    """The answer to one question, from the objects themselves: imports them, and with them torch."""
    about, *rest = question
    return {
        "protocol": _protocol, "tasks": _tasks, "method": _method, "methods": _methods, "settings": _settings,
        "weights": _weights, "device": _device, "words": _words, "images": _images,
        "images_in_learning_order": _images_in_learning_order, "reference": _reference,
    }[about](*rest)  # fmt: skip


def _protocol(name: str) -> dict[str, Any]:
    from bench.streams import names

    found = names.find(name)
    return {
        "name": found.name, "version": found.version, "kind": found.kind, "fixed_order": found.fixed_order,
        "content": found.content, "notes": found.notes,
    }  # fmt: skip


def _words(name: str, order_seed: int) -> str:
    from bench.streams import names

    return stream_identity.words_of_protocol(names.find(name), order_seed)


def _images(folders: Sequence[str | None], name: str, order_seed: int, *limits: int | None) -> dict[str, dict[str, str]] | None:
    from bench.streams import names

    return stream_identity.present(names.find(name), order_seed, _folders(folders), *limits)


def _images_in_learning_order(folders: Sequence[str | None], name: str, order_seed: int, *limits: int | None) -> str | None:
    """Only where all images are there: nothing is downloaded for a plan."""
    from bench.streams import names

    protocol, places = names.find(name), _folders(folders)
    if stream_identity.present(protocol, order_seed, places, *limits) is None:
        return None
    return stream_identity.digest_in_learning_order(protocol, order_seed, places, *limits)


def _reference(folders: Sequence[str | None], images: str | None, sentences: str | None) -> dict[str, str] | None:
    from bench.streams import reference as reference_data

    return reference_data.digests(images, sentences, _folders(folders))


def _folders(places: Sequence[str | None]) -> Folders:
    return chosen(*(Path(place) if place else None for place in places))


def _tasks(name: str, order_seed: int) -> int:
    from bench.streams import names

    return len(names.find(name).tasks(order_seed))


def _method(name: str) -> dict[str, Any]:
    method = registry.load("method", name)
    return {"version": method.version, "scenarios": list(method.scenarios)}


def _methods() -> tuple[list[str], list[str]]:
    loaded, broken = registry.load_all("method")
    return list(loaded), broken


def _settings(method: str, protocol: str, changes: Sequence[Sequence[str]]) -> dict[str, Any]:
    from bench.runs.assignments import Assignment, chosen_settings, identifying

    settings, changed = chosen_settings(
        method, registry.load("method", method), protocol, [Assignment(method, *change) for change in changes]
    )
    overrides = ";".join(f"{field}={value}" for field, value in sorted(changed.items()))
    return {"settings": identifying(settings), "overrides": overrides}


def _weights(backbone: str, pretrained: str | None) -> str:
    from bench.clip.loading import identity

    return identity(backbone, pretrained)


def _device(device: str, precision: str, hardware: str) -> tuple[str, str]:
    from bench.clip import backbone

    device = backbone.resolve_device(device)
    return device, backbone.resolve_precision(precision, device)


# -- what the answers depend on ---------------------------------------------------------------------------------


def _is_plain(protocol: str) -> bool:
    """Does the name alone say what the protocol is? One of a family such as folder:PATH depends on files."""
    return not set(protocol) & set(":/")


def _hardware() -> str:
    """Changes when another device or driver could be seen."""
    nodes = sorted(str(path) for pattern in ("nvidia[0-9]*", "dxg", "kfd") for path in Path("/dev").glob(pattern))
    driver = Path("/proc/driver/nvidia/version")
    facts = [platform.node(), os.environ.get("CUDA_VISIBLE_DEVICES"), nodes, driver.read_text() if driver.exists() else ""]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=1)
def _sources_digest() -> str:
    """Of every package that registers something, with the entry points themselves."""
    installed = entry_points()
    found = [point for group in registry.KINDS.values() for point in installed.select(group=group)]
    points = sorted((point.group, point.name, point.value) for point in found)
    packages = sorted({"bench", *(point.module.split(".")[0] for point in found)})
    distributions = sorted({point.dist.name for point in found if point.dist} | {"torch", "open_clip_torch"})
    digest = hashlib.sha256(json.dumps([points, [_version(name) for name in distributions], sys.version]).encode())
    for package in packages:
        spec = find_spec(package)
        places = list(spec.submodule_search_locations or [spec.origin]) if spec else []
        for place in map(Path, places):
            for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
                if file.suffix != ".pyc" and file.is_file():
                    facts = file.stat()
                    digest.update(f"{file}\0{facts.st_size}\0".encode())
                    digest.update(file.read_bytes() if facts.st_size < SMALL else str(facts.st_mtime_ns).encode())
    return digest.hexdigest()[:24]


def _version(distribution: str) -> str:
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return distribution


def _read(path: Path | None) -> dict[str, Any]:
    """The kept answers; a damaged file holds none."""
    try:
        found = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _prune(path: Path) -> None:
    """Only the latest files of answers stay."""
    for old in sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)


def main() -> None:
    """The helper process: a question a line in, an answer a line out. What else is printed goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            found = {"answer": answer(json.loads(line))}
        except BenchError as error:
            found = {"error": str(error)}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
