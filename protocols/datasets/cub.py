"""CUB-200-2011: 200 species of birds (Wah et al., Caltech, 2011).

    cub200        official split (5994 / 5794), CGIL's class names. Read from the official archive, or from mammoth's
                  arrays (CUB200/train_data.npz and test_data.npz), whose images were resized before they were stored:
                  numbers from them can differ slightly, and the digest of the images in the results tells which it was.
    cub200-clap   the copy with other proportions (9430 / 2358) that RevisitingCIL and PROOF distribute as image folders,
                  cub/train and cub/test, with PROOF's class names, as CLAP4CLIP has it.
"""

import numpy as np

from bench import Copy, HubFiles, ImageSource, Layout, RemoteFile
from bench.images import pickles
from protocols.datasets.by_name import data_set

ORIGIN = "https://www.vision.caltech.edu/datasets/cub_200_2011; non-commercial research and education"
ARCHIVE = RemoteFile(
    (
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        "http://www.vision.caltech.edu/visipedia-data/CUB-200-2011/CUB_200_2011.tgz",
    ),
    digest="md5:97eceeb196236b17998738112f37df78",
    renamed=(("attributes.txt", "CUB_200_2011/attributes.txt"),),  # the archive has it beside its folder
)
LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt")
ARRAYS = {"train": "train_data.npz", "test": "test_data.npz"}


def _read(copy: Copy, split: str) -> ImageSource:
    """Three lists with lines "1 x": the image's path, its class 1..200, and whether it is for training."""
    paths, classes, training = (_column(copy, name) for name in LISTS)
    for name, column in zip(LISTS[1:], (classes, training)):
        if column.keys() != paths.keys():
            raise copy.damaged(copy.folder / name, f"it speaks of other images than {LISTS[0]}")
    images = [image for image in paths if (training[image] == "1") == (split == "train")]
    with copy.reading(copy.folder / LISTS[1]):
        numbers = [int(classes[image]) - 1 for image in images]
    chosen = [f"images/{paths[image]}" for image in images]
    return copy.files(chosen, copy.labels(numbers, copy.folder / LISTS[1], chosen))


def _column(copy: Copy, name: str) -> dict[str, str]:
    """image number -> what the list says of it"""
    path = copy.folder / name
    lines = copy.text_lines(path)
    with copy.reading(path):
        return dict(line.split() for line in lines)


def _read_arrays(copy: Copy, split: str) -> ImageSource:
    path = copy.folder / ARRAYS[split]
    with copy.reading(path):
        images, targets = pickles.load_npz(path, ["data", "targets"])
        labels = copy.labels(targets, path)
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images and {len(labels)} labels")
        pixels = [np.asarray(image, np.uint8) for image in images]  # of one size or of several
        if wrong := [image.shape for image in pixels if image.ndim != 3 or image.shape[2] != 3]:
            raise ValueError(f"an image has the shape {wrong[0]}, not (height, width, 3)")
    return ImageSource.from_list(pixels, labels)


def _read_folders(copy: Copy, split: str) -> ImageSource:
    """Class folders "001.Black_footed_Albatross", whose sorted order is that of the official labels."""
    folders = copy.sub_folders("train")
    for label, name in enumerate(copy.info.class_names):
        if len(folders) != len(copy.info.class_names) and not any(folder.startswith(f"{label + 1:03d}") for folder in folders):
            raise copy.damaged(copy.folder / "train" / f"{label + 1:03d}.*", f"the folder of class {name!r} is missing")
    return copy.files(*copy.class_folders(folders, below=split))


cub200 = data_set(
    "cub200",
    Layout("CUB_200_2011", ("images", *LISTS), _read, download=(ARCHIVE,)),
    Layout(
        "CUB200",
        tuple(ARRAYS.values()),
        _read_arrays,
        download=(HubFiles("aimagelab-ta/cub200", ("*.npz",), into="CUB200"),),
    ),
    version="1",
    summary="200 species of birds, official split",
    origin=ORIGIN,
    train_images=5994,
    test_images=5794,
    image_size=(375, 500),
    templates="photo",
)
cub200_clap = data_set(
    "cub200-clap",
    Layout(
        "cub",
        ("train", "test"),
        _read_folders,
        by_hand="download the CUB200 archive linked in the read-me of github.com/zhoudw-zdw/RevisitingCIL and unpack it",
    ),
    version="1",
    summary="200 species of birds, the 80/20 copy of RevisitingCIL and PROOF that CLAP4CLIP uses",
    origin="https://github.com/zhoudw-zdw/RevisitingCIL (its CUB200); " + ORIGIN,
    train_images=9430,
    test_images=2358,
    image_size=(375, 500),
    templates="birds",
)
