"""CoOp's split files: the few-shot splits of nine data sets (arXiv 2109.01134), which X-TAIL uses as well.

    {"train": [["banded/banded_0001.jpg", 0, "banded"], ...], "val": [...], "test": [...]}

Images, labels and names of each part, in one JSON file beside the images. The part "val" is used by nobody here: the training
images are those of "train". Read from the folders that CoOp's instructions make, or from where this package keeps the images
of the data set under its other splits, with the split file beside them.

A class is found by the name that the file gives it. Where a name is written in another way than here, the label decides,
and it is said: a label that is the one of another class of the file would be a permutation of classes, which nobody would
notice in the numbers, and is refused.
"""

import json
from collections.abc import Sequence
from functools import partial

import numpy as np

from bench import Copy, ImageSource, Layout, RemoteFile
from bench.images.dataset import note
from protocols.datasets import caltech101, dtd, eurosat, flowers102, food101, mnist, oxford_pets, sun397
from protocols.datasets.by_name import data_set

TEMPLATES = "photo"
DRIVE = "https://drive.google.com/uc?export=download&id="
NO_CARS = "copy CoOp's cars_train, cars_test and split_zhou_StanfordCars.json to stanford_cars (the images' host is gone)"


def split_file(name: str) -> str:
    """
    >>> split_file("OxfordPets")
    'split_zhou_OxfordPets.json'
    """
    return f"split_zhou_{name}.json"


def read_split_file(file: str, images: str, copy: Copy, split: str) -> ImageSource:
    """The images of "train" or "test", in the order of the file; `images` is their folder below the copy's."""
    path = copy.folder / file
    with copy.reading(path):
        entries = json.loads(path.read_text(encoding="utf-8"))[split]
        paths = [str(entry[0]) for entry in entries]
        numbers = copy.labels([int(entry[1]) for entry in entries], path, paths)
        names = [str(entry[2]) for entry in entries]
    prefix = f"{images}/" if images else ""
    return copy.files([prefix + one for one in paths], _labels(copy, file, paths, numbers, names))


def _labels(copy: Copy, file: str, paths: Sequence[str], numbers: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(n,) int64: the class of each image."""
    place = {_plain(name): label for label, name in enumerate(copy.info.class_names)}
    label_of: dict[tuple[str, int], int] = {}
    called = dict(zip(((_plain(name), int(number)) for name, number in zip(names, numbers)), paths))
    taken = {place[name]: name for name, _ in called if name in place}
    for (name, number), example in called.items():
        if name not in place and number in taken:
            known = f"which {file} gives to {taken[number]!r} as well"
            raise copy.damaged(copy.folder / file, f"image {example} is of class {name!r} with label {number}, {known}")
        if name not in place:
            own = copy.info.class_names[number]
            note(f"{copy.info.name}: {file} calls class {number} {name!r}; prompts are made of {own!r}")
        label_of[name, number] = place.get(name, number)
    return np.array([label_of[_plain(name), int(number)] for name, number in zip(names, numbers)], dtype=np.int64)


def _plain(name: str) -> str:
    """
    >>> _plain("Egyptian_Mau")
    'egyptian mau'
    """
    return " ".join(name.replace("_", " ").lower().split())


def _layout(
    folder: str, images: str, file: str, *download: RemoteFile, needs: tuple[str, ...] = (), by_hand: str = ""
) -> Layout:
    """Images in a folder of their own, or in those that it `needs`, and the split file beside them."""
    read = partial(read_split_file, file, images)
    return Layout(folder, (*(needs or (images,)), file), read, download=download, by_hand=by_hand)


def _from_drive(identifier: str, name: str, into: str) -> RemoteFile:
    return RemoteFile((DRIVE + identifier,), into=into, name=split_file(name))


def _images_of(layout: Layout) -> RemoteFile:
    """The archive of images that another split of the data set downloads."""
    found = layout.download[0]
    assert isinstance(found, RemoteFile)
    return found


CALTECH101 = split_file("Caltech101")
caltech101_coop = data_set(
    "caltech101-coop",
    _layout(
        caltech101.FOLDER,
        caltech101.IMAGES,
        CALTECH101,
        _images_of(caltech101.caltech101.layouts[0]),
        _from_drive("1hyarUivQE36mY6jSomru6Fjd-JzwcCzN", "Caltech101", caltech101.FOLDER),
    ),
    _layout("caltech-101", caltech101.IMAGES, CALTECH101),
    version="1",
    summary="100 kinds of objects, CoOp's split and names",
    origin=caltech101.caltech101.info.origin,
    templates=TEMPLATES,
    train_images=4128,
    test_images=2465,
    image_size=(200, 300),
)

DTD = split_file("DescribableTextures")
dtd_coop = data_set(
    "dtd-coop",
    _layout(
        "dtd/dtd",
        "images",
        DTD,
        dtd.ARCHIVE,
        _from_drive("1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x", "DescribableTextures", "dtd/dtd"),
    ),
    _layout("dtd", "images", DTD),
    version="1",
    summary="47 describable textures, CoOp's split",
    origin=dtd.dtd.info.origin,
    names="dtd",
    templates=TEMPLATES,
    train_images=2820,
    test_images=1692,
    image_size=(480, 500),
)

FLOWERS = split_file("OxfordFlowers")
flowers102_coop = data_set(
    "flowers102-coop",
    _layout(
        flowers102.FOLDER,
        "jpg",
        FLOWERS,
        _images_of(flowers102.flowers102.layouts[0]),
        _from_drive("1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT", "OxfordFlowers", flowers102.FOLDER),
    ),
    _layout("oxford_flowers", "jpg", FLOWERS),
    version="1",
    summary="102 kinds of flowers, CoOp's split",
    origin=flowers102.flowers102.info.origin,
    names="flowers102",
    templates=TEMPLATES,
    train_images=4093,
    test_images=2463,
    image_size=(500, 600),
)

FOOD = split_file("Food101")
food101_coop = data_set(
    "food101-coop",
    _layout(
        food101.FOLDER,
        "images",
        FOOD,
        _images_of(food101.food101.layouts[0]),
        _from_drive("1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl", "Food101", food101.FOLDER),
    ),
    version="1",
    summary="101 dishes, CoOp's split",
    origin=food101.food101.info.origin,
    templates=TEMPLATES,
    train_images=50_500,
    test_images=30_300,
    image_size=(512, 512),
)

PETS = split_file("OxfordPets")
oxford_pets_coop = data_set(
    "oxford-pets-coop",
    _layout(
        oxford_pets.FOLDER,
        "images",
        PETS,
        _images_of(oxford_pets.oxford_pets.layouts[0]),
        _from_drive("1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs", "OxfordPets", oxford_pets.FOLDER),
    ),
    _layout("oxford_pets", "images", PETS),
    version="1",
    summary="37 breeds of cats and dogs, CoOp's split",
    origin=oxford_pets.oxford_pets.info.origin,
    templates=TEMPLATES,
    train_images=2944,
    test_images=3669,
    image_size=(375, 500),
)

stanford_cars_coop = data_set(
    "stanford-cars-coop",
    _layout("stanford_cars", "", split_file("StanfordCars"), needs=("cars_train", "cars_test"), by_hand=NO_CARS),
    version="1",
    summary="196 models of cars, CoOp's split",
    origin="https://ai.stanford.edu/~jkrause/cars/car_dataset.html (gone); for research, no licence stated",
    templates=TEMPLATES,
    train_images=6509,
    test_images=8041,
    image_size=(480, 700),
)

SUN = split_file("SUN397")
sun397_coop = data_set(
    "sun397-coop",
    _layout(
        "SUN397",
        "",
        SUN,
        _images_of(sun397.sun397.layouts[0]),
        _from_drive("1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq", "SUN397", "SUN397"),
        needs=("a/abbey", "y/youth_hostel"),
    ),
    _layout("sun397", "SUN397", SUN),
    version="1",
    summary="397 scenes, CoOp's split",
    origin=sun397.sun397.info.origin,
    templates=TEMPLATES,
    train_images=15_880,
    test_images=19_850,
    image_size=(480, 640),
)

# -- the same images under X-TAIL's names -------------------------------------------------------------------------

eurosat_xtail = data_set(
    "eurosat-xtail",
    *eurosat.eurosat_coop.layouts,
    version="1",
    summary='satellite tiles of ten kinds of land use, CoOp\'s split, names that end in "satellite location"',
    origin=eurosat.ORIGIN,
    templates=TEMPLATES,
    train_images=13_500,
    test_images=8100,
    image_size=(64, 64),
)

mnist_xtail = data_set(
    "mnist-xtail",
    *mnist.mnist.layouts,
    version="1",
    summary='handwritten digits under names like number: "0 - zero"',
    origin=mnist.mnist.info.origin,
    templates=TEMPLATES,
    train_images=60_000,
    test_images=10_000,
    image_size=(28, 28),
)

