"""SUN397: 397 scenes (Xiao et al., CVPR 2010).

MTIL does not use the official partitions but a random 80/20 split with seed 42 of all 108,754 images, sorted by their
paths. A class's folder is its name behind its first letter: "apartment building/outdoor" lies in
a/apartment_building/outdoor. The copies on the Hugging Face hub have other splits and no paths.
"""

import numpy as np

from bench import Copy, ImageSource, Layout, RemoteFile
from protocols.datasets.by_name import data_set
from protocols.datasets.splits import random_split

URLS = (
    "http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
    "https://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
)


def folder_of(name: str) -> str:
    """
    >>> folder_of("apartment building/outdoor")
    'a/apartment_building/outdoor'
    """
    return f"{name[0]}/{name.replace(' ', '_')}"


def _read(copy: Copy, split: str) -> ImageSource:
    paths, labels = copy.class_folders([folder_of(name) for name in copy.info.class_names])
    by_path = np.argsort(np.asarray(paths), kind="stable")
    return copy.files(paths, labels).select(by_path[random_split(len(paths))[split]])


sun397 = data_set(
    "sun397",
    Layout(
        "SUN397",
        ("a/abbey", "y/youth_hostel"),
        _read,
        download=(RemoteFile(URLS, digest="md5:8ca2778205c41d23104230ba66911c7a"),),
    ),
    version="2",  # 1: "jail cell" before "jail/indoor"
    summary="397 scenes, indoors and outdoors",
    origin="https://vision.princeton.edu/projects/2010/SUN; collected from the web for research, no licence stated",
    train_images=87_003,
    test_images=21_751,
    image_size=(480, 640),
)
