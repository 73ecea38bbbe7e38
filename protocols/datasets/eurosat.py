"""EuroSAT (RGB): Sentinel-2 tiles of ten kinds of land use, 64x64 pixels (Helber et al., 2019).

    eurosat        MTIL's split: a random 80/20 with seed 42 of all 27,000 images in the order of the image folders
    eurosat-coop   CoOp's split file (13,500 / 8100; its 5400 validation images stay unused), as CGIL has it

Both read the class folders of the official archive where torchvision puts them, eurosat/2750.
"""

import json
from pathlib import PurePosixPath

from bench import Copy, ImageSource, Layout, RemoteFile
from protocols.datasets.by_name import data_set
from protocols.datasets.splits import random_split

FOLDER = "eurosat"
CLASSES = (
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial",
    "Pasture", "PermanentCrop", "Residential", "River", "SeaLake",
)  # fmt: skip
SPLIT_FILE = "split_zhou_EuroSAT.json"
ORIGIN = "https://github.com/phelber/eurosat; MIT, Copernicus data"
MIRROR = "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip"
TILES = RemoteFile((MIRROR,), digest="md5:c8fa014336c82ac7804f0398fcb19387", into=FOLDER, gives="eurosat/2750")
TILES_OF_ZENODO = RemoteFile(
    ("https://zenodo.org/records/7711810/files/EuroSAT_RGB.zip",),
    digest="md5:f46e308c4d50d4bf32fedad2d3d62f3b",
    into=FOLDER,
    renamed=(("eurosat/EuroSAT_RGB", "eurosat/2750"),),
    gives="eurosat/2750",
)
SPLIT = RemoteFile(
    ("https://drive.google.com/uc?export=download&id=1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",), into=FOLDER, name=SPLIT_FILE
)


def _read_random_split(copy: Copy, split: str) -> ImageSource:
    paths, labels = copy.class_folders(CLASSES, below="2750")
    return copy.files(paths, labels).select(random_split(len(paths))[split])


def _read_split_file(copy: Copy, split: str) -> ImageSource:
    """{"train": [["AnnualCrop/AnnualCrop_1.jpg", 0, "Annual Crop Land"], ...], "val": ..., "test": ...}"""
    path = copy.folder / SPLIT_FILE
    with copy.reading(path):
        entries = json.loads(path.read_text(encoding="utf-8"))[split]
        images = [str(entry[0]) for entry in entries]
        labels = copy.labels([int(entry[1]) for entry in entries], path, images)
    for image, label in zip(images, labels):
        if PurePosixPath(image).parts[0] != CLASSES[label]:
            raise copy.damaged(path, f"image {image} has label {label}, which is that of {CLASSES[label]}")
    return copy.files([f"2750/{image}" for image in images], labels)


eurosat = data_set(
    "eurosat",
    Layout(FOLDER, ("2750",), _read_random_split, download=(TILES,)),
    Layout(FOLDER, ("2750",), _read_random_split, download=(TILES_OF_ZENODO,)),
    version="1",
    summary="satellite tiles of ten kinds of land use, MTIL's random split",
    origin=ORIGIN,
    train_images=21_600,
    test_images=5400,
    image_size=(64, 64),
)
eurosat_coop = data_set(
    "eurosat-coop",
    Layout(FOLDER, ("2750", SPLIT_FILE), _read_split_file, download=(TILES, SPLIT)),
    Layout(FOLDER, ("2750", SPLIT_FILE), _read_split_file, download=(TILES_OF_ZENODO, SPLIT)),
    version="1",
    summary="satellite tiles of ten kinds of land use, CoOp's split, names and template, as CGIL has them",
    origin=ORIGIN,
    train_images=13_500,
    test_images=8100,
    image_size=(64, 64),
)
