"""Any folder of images as a data set: a sub-folder is a class, and its name the class's name.

    pets/train/tabby_cat/1.jpg, pets/test/tabby_cat/7.jpg     folders of splits side by side; val or valid serves as test
                                                              where there is no test
    pets/tabby_cat/1.jpg                                      else a fixed fifth of every class is for testing

A folder that holds class folders is one of a split if it is called train, training, val, valid, validation, test or testing, in
any case, alone (Train) or with something before or behind it (seg_train, train_images). A folder of such a name that holds
images is a class ("train" beside "bus"), unless there are several of them. Images may lie deeper in a class's folder, and are
turned as their camera says. What is not read is said: other files, other folders beside the splits. Hidden entries and what
systems and notebooks leave behind are passed over.

`dataset.toml` beside the folders may give templates and readable names of the classes (protocols/datasets/folder_words.py). They
are a part of the data set's version; without any, that is what it is without the file.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from bench import BenchError, Dataset, DatasetInfo, Folders, ImageFiles, ImageSource, one_line
from bench.errors import printable
from bench.images import class_names
from bench.images.listing import Walk, class_after_class, folders_in, in_words, is_litter
from bench.images.templates import complaint
from bench.streams import names as protocol_names
from bench.streams.options import TEMPLATE as TEMPLATE_OPTION
from bench.system.digests import of_plain_data
from protocols.datasets import folder_words
from protocols.datasets.folder_words import Words

PREFIX = "folder:"
RULE = "2"  # bump when the classes, their names, the images or the split of a folder change
TEMPLATE = "a photo of a {}."
SPLITS = ("train", "test")
WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test", "testing": "test",
}  # fmt: skip
TEST_SHARE = 0.2


def image_folder(path: str | Path, templates: tuple[str, ...] = (), at_least: int = 2) -> Dataset:
    """The data set in a folder, in its own words or with these templates.

    A list of its files is read at once, an image only when it is needed.
    Its name is "folder:" and the folder's own name, whatever lies above. Its version holds a digest of the files' names.
    Raises BenchError for a folder that holds fewer than `at_least` classes, or whose classes and splits cannot be told for sure.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise BenchError(f"{root}: there is no such folder; give one that has a sub-folder of images for every class")
    _refuse_unwritable_name(root.resolve())
    reading = _Reading(root, at_least)
    splits = reading.listed()
    classes = list(splits["train"])
    words = folder_words.read(root)
    words = replace(words, templates=templates or words.templates)
    folder_words.refuse_others(words, classes, root)
    names = _class_names(root, classes, words)
    images = {split: class_after_class(list(splits[split].values())) for split in SPLITS}
    listed = "\n".join(f"{split} {path}" for split in SPLITS for path in images[split][0])
    info = DatasetInfo(
        name=f"{PREFIX}{root.resolve().name}",
        version=f"{RULE}.{hashlib.sha256(listed.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}{_other_words(words)}",
        class_names=names,
        templates=words.templates or (TEMPLATE,),
        summary=f"{len(names)} classes of images in {root}",
        origin=(words.origin or f"the folder {root}") + (f"; licence: {words.licence}" if words.licence else ""),
        train_images=len(images["train"][0]),
        test_images=len(images["test"][0]),
    )
    return Dataset(info, partial(_open_split, root, images), content="own", notes=tuple(reading.notes()))


def family(name: str) -> Dataset | None:
    """folder:PATH: images of your own, a sub-folder a class; with +template=... in other words"""
    if not name.startswith(PREFIX):
        return None
    base, options = protocol_names.split(name)
    templates = tuple(option.removeprefix(TEMPLATE_OPTION) for option in options)
    for option, template in zip(options, templates):
        wrong = complaint(template) if option != template else "is no option of a data set; it takes +template=..."
        if wrong:
            raise BenchError(f"{base}: +{option if option == template else TEMPLATE_OPTION}{wrong}")
    found = image_folder(base.removeprefix(PREFIX), templates)
    return _MADE.setdefault((name, found.info), found)


# a folder whose files have the same names is the same data set, so that a stream opens it once, however often it is asked for
_MADE: dict[tuple[str, DatasetInfo], Dataset] = {}


def _other_words(words: Words) -> str:
    """The part of the version that says that templates and names are not those which a folder has by itself."""
    said = [list(words.templates), dict(words.class_names)]
    return f".{of_plain_data(said)[:8]}" if any(said) else ""


def _open_split(root: Path, images: dict[str, tuple[list[str], np.ndarray]], split: str, folders: Folders) -> ImageSource:
    def complain(path: Path, why: str) -> BenchError:
        return BenchError(f"{path}: {why}; replace or remove the file")

    paths, labels = images[split]
    return ImageFiles(root, paths, labels, folders.cache, complain, upright=True)


def _class_names(root: Path, folders: list[str], words: Words) -> tuple[str, ...]:
    """The names that are given, else the folders' as words; BenchError for one without any, or two that make the same prompt."""
    by_itself = (" ".join(name.replace("_", " ").replace("-", " ").split()) for name in folders)
    names = tuple(words.class_names.get(folder, name) for folder, name in zip(folders, by_itself))
    template = (words.templates or (TEMPLATE,))[0]
    for folder, name in zip(folders, names):
        _refuse_unwritable_name(root / folder)
        if not class_names.as_tokenized(name):
            raise BenchError(
                f"{root / folder}: there is no word in its name, which names a class; rename the folder, or name the class in "
                f"{root / folder_words.FILE}"
            )
    for one, other in class_names.same_prompts(names):
        raise BenchError(
            f"{root}: the folders {folders[one]!r} and {folders[other]!r} make the same prompt "
            f"({template.format(class_names.as_tokenized(names[one]))!r}); rename one of them, or put their images together"
        )
    return names


def _refuse_unwritable_name(folder: Path) -> None:
    """Names of folders stand in results and prompts, which hold lines of UTF-8."""
    name = folder.name.replace(" ", "_")
    if printable(name) != name:
        raise BenchError(f"{folder}: there are control characters, or bytes that are not UTF-8, in its name; rename the folder")


@dataclass
class _Reading:
    """The folders and files below a root, and what is left out of them."""

    root: Path
    at_least: int = 2  # classes
    walk: Walk = field(default_factory=Walk)
    said: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What is not read, a line each."""
        return self.said + [words for words in [in_words(self.walk.left_out, str(self.root))] if words]

    def listed(self) -> dict[str, dict[str, list[str]]]:
        """split -> folder of a class -> its images, relative to the root; the classes of both splits are equal and sorted."""
        folders = self._folders(self.root)
        chosen = self._split_folders(folders)
        if chosen:
            if _role(chosen["test"]) == "val":
                self.said.append(f"{chosen['test']}/ in {self.root} serves as the test split")
            self.said += [self._not_read(name) for name in folders if name not in chosen.values()]
            found = {
                split: {name: self._images(f"{chosen[split]}/{name}") for name in self._folders(self.root / chosen[split])}
                for split in SPLITS
            }
            self._refuse_different_classes(found, chosen)
        else:
            self._refuse_splits_of_other_names(folders)
            found = _divided({name: self._images(name) for name in folders}, self.root)
        for place in [self.root, *(self.root / name for name in chosen.values())]:
            if beside := sum(name.lower().endswith(self.walk.suffixes) for name in self._files(place)):
                self.said.append(f"{beside} {'image' if beside == 1 else 'images'} in {place} beside the folders there: not read")
        if len(found["train"]) < self.at_least:
            wanted = "a stream needs at least two sub-folders" if self.at_least > 1 else "a class is a sub-folder"
            within = f"; did you mean {self.root / folders[0]}?" if len(folders) == 1 and self._holds_folders(folders[0]) else ""
            raise BenchError(
                f"{self.root}: {len(found['train'])} class folders; {wanted} with images{within}"
            )
        return found

    def _not_read(self, folder: str) -> str:
        try:
            images = len(Walk().images_below(self.root / folder))
        except BenchError:  # a folder that cannot be read does not matter here
            return f"{folder}/ in {self.root} is not read"
        return f"{folder}/ in {self.root} is not read ({images} image{'s' * (images != 1)})"

    # -- splits ---------------------------------------------------------------------------------------------------

    def _split_folders(self, folders: list[str]) -> dict[str, str]:
        """ "train" and "test" -> the folder that holds it; empty if the folders are classes."""
        named = {name: role for name in folders if (role := _role(name))}
        found = {name: role for name, role in named.items() if self._holds_folders(name)}
        if not found:
            if len(named) == len(folders) > 1 and len({_beside_the_word(name) for name in named}) == 1:
                raise BenchError(
                    f"{self.root}: {_and(named)} hold images and no class folders; put the images of every class into a folder "
                    "of its name"
                )
            return {}
        for name in named:
            if name not in found and self._folders(self.root / name):
                raise BenchError(
                    f"{self.root / name}: holds both class folders and images beside them; move the images into the folder of "
                    "their class, or out"
                )
        by_role: dict[str, list[str]] = {}
        for name, role in found.items():
            by_role.setdefault(role, []).append(name)
        for role, own in by_role.items():
            if len(own) > 1 and (role != "val" or "test" not in by_role):
                raise BenchError(f"{self.root}: {_and(own)} are both folders of a {role} split; keep one of them there")
        if "train" not in by_role or not ("test" in by_role or "val" in by_role):
            there = f"{_and(found)} {'holds a split' if len(found) == 1 else 'hold splits'}"
            raise BenchError(
                f"{self.root}: {there}, and what goes with it is missing; two folders are wanted, train and test (or val), with "
                "a sub-folder for every class in each; or none, and every sub-folder is a class"
            )
        return {"train": by_role["train"][0], "test": by_role.get("test", by_role.get("val", []))[0]}

    def _refuse_splits_of_other_names(self, folders: list[str]) -> None:
        """Folders that hold folders of the same names are splits (fold1, fold2), and not classes."""
        below = {name: set(self._folders(self.root / name)) for name in folders if self._holds_folders(name)}
        for one, other in zip(list(below), list(below)[1:]):
            shared = sorted(below[one] & below[other])
            if len(shared) > 1:
                raise BenchError(
                    f"{self.root}: {one} and {other} hold folders of the same names ({', '.join(shared[:3])}), so they are "
                    "splits and not classes; call the two that are wanted train and test"
                )

    def _refuse_different_classes(self, found: dict[str, dict[str, list[str]]], chosen: dict[str, str]) -> None:
        for split, other in (SPLITS, SPLITS[::-1]):
            for name in found[other]:
                if not found[split].get(name):
                    place = self.root / chosen[split] / name
                    raise BenchError(f"{place}: class {name!r} is in {chosen[other]} but has no images here; add some")

    # -- folders and files ----------------------------------------------------------------------------------------

    def _folders(self, place: Path) -> list[str]:
        """The folders in a folder, sorted."""
        try:
            return folders_in(place)
        except OSError as error:
            raise BenchError(f"{place}: the folder cannot be read ({one_line(error)})") from error

    def _holds_folders(self, name: str) -> bool:
        """Are there folders in it, and no images beside them?"""
        place = self.root / name
        files = (file.lower() for file in self._files(place))
        return bool(self._folders(place)) and not any(file.endswith(self.walk.suffixes) for file in files)

    def _files(self, place: Path) -> list[str]:
        return [entry.name for entry in place.iterdir() if not entry.is_dir() and not is_litter(entry.name)]

    def _images(self, folder: str) -> list[str]:
        """The images of a class, relative to the root."""
        before = self.walk.left_out.copy()
        found = self.walk.images_below(self.root / folder, f"{folder}/")
        if not found:
            others = in_words(self.walk.left_out - before, folder)
            found_instead = f" ({others})" if others else ""
            raise BenchError(
                f"{self.root / folder}: no image in it{found_instead}; every sub-folder is a class: add images or remove it"
            )
        return found


def _role(name: str) -> str | None:
    """Which split a folder's name says that it is.

    >>> [_role(name) for name in ("Train", "seg_test", "valid-images", "TESTING", "trainer", "latest", "my training set")]
    ['train', 'test', 'val', 'test', None, None, None]
    """
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    return WORDS.get(words[-1]) or WORDS.get(words[0]) if words else None


def _beside_the_word(name: str) -> str:
    """What a split's name holds beside the word for the split, which its sibling has too.

    >>> _beside_the_word("seg_train"), _beside_the_word("Test")
    ('seg', '')
    """
    return " ".join(word for word in re.split(r"[\W_]+", name.lower()) if word not in WORDS)


def _and(names: Iterable[str]) -> str:
    return " and ".join(f"{name}/" for name in names)


def _divided(classes: dict[str, list[str]], root: Path) -> dict[str, dict[str, list[str]]]:
    """A fifth of every class is for testing, at least one image: those whose names have the smallest digests."""
    splits: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    for name, images in classes.items():
        if len(images) < 2:
            raise BenchError(f"{root / name}: {len(images)} images; a class needs at least two, one to train and one to test")
        ranked = sorted(images, key=lambda path: hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest())
        chosen = set(ranked[: max(1, round(TEST_SHARE * len(images)))])
        splits["test"][name] = [path for path in images if path in chosen]
        splits["train"][name] = [path for path in images if path not in chosen]
    return splits
