"""Caltech-101: 101 kinds of objects, without the background class (Li, Andreeto, Ranzato, Perona, 2003).

It has no official split: MTIL's is a random 80/20 split with seed 42 of all 8677 images, classes in the order of their
folders and images in that of their numbers. Faces and Faces_easy show the same photographs, whole and cropped. The copies
on the Hugging Face hub say neither names nor order of the images, so this split cannot be made from them.
"""

from bench import Copy, ImageSource, Layout, RemoteFile
from protocols.datasets import data
from protocols.datasets.by_name import data_set
from protocols.datasets.splits import random_split

FOLDER = "caltech101"
IMAGES = "101_ObjectCategories"


def _read(copy: Copy, split: str) -> ImageSource:
    paths, labels = copy.class_folders(data.class_names("caltech101-folders"), below=IMAGES)
    return copy.files(paths, labels).select(random_split(len(paths))[split])


caltech101 = data_set(
    "caltech101",
    Layout(
        FOLDER,
        (IMAGES,),
        _read,
        download=(
            RemoteFile(
                ("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",),
                digest="md5:3138e1922a9193bfa496528edbbc45d0",
                into=FOLDER,
                inner=(f"caltech-101/{IMAGES}.tar.gz",),
                renamed=((f"{FOLDER}/caltech-101/{IMAGES}", f"{FOLDER}/{IMAGES}"),),
            ),
        ),
    ),
    version="1",
    summary="101 kinds of objects",
    origin="https://data.caltech.edu/records/mzrjq-6wc02; CC BY 4.0",
    train_images=6941,
    test_images=1736,
    image_size=(200, 300),
)
