"""The 50-class VTAB of class-incremental papers: ten classes each of five data sets (RevisitingCIL, arXiv 2303.07338).

A copy of image folders, train/ and test/, distributed by its authors. Its folders do not say the classes' names: their
sorted order is that of RESISC45, DTD, Oxford-IIIT Pet, EuroSAT and Flowers-102, and the names are CLAP4CLIP's.
"""

from bench import Copy, ImageSource, Layout
from protocols.datasets.by_name import data_set


def _read(copy: Copy, split: str) -> ImageSource:
    folders = copy.sub_folders("train")
    classes = len(copy.info.class_names)
    if len(folders) != classes:
        raise copy.damaged(copy.folder / "train", f"it has {len(folders)} class folders instead of {classes}")
    paths, labels = copy.class_folders(folders, below=split)
    return copy.files(paths, labels)


vtab50 = data_set(
    "vtab50",
    Layout(
        "vtab",
        ("train", "test"),
        _read,
        by_hand="download the VTAB archive linked in the read-me of github.com/zhoudw-zdw/RevisitingCIL and unpack it",
    ),
    version="1",
    summary="50 classes of five domains in the order of their domains: aerial images, textures, pets, satellite, flowers",
    origin="https://github.com/zhoudw-zdw/RevisitingCIL (its VTAB); licences of the five data sets",
    train_images=1796,
    test_images=8619,
)
