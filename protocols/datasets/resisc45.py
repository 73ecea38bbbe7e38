"""NWPU-RESISC45: 45 kinds of scenes seen from above, 700 images each (Cheng et al., 2017).

There is no official split; this is that of Neumann et al. (arXiv 1911.06721), which torchgeo and the Hugging Face hub's
copies have: 18,900 training and 6300 test images, 6300 for validation that stay unused. Read from class folders and
lists where torchgeo puts them, or from parquet files.
"""

from bench import Copy, HubFiles, ImageSource, Layout, RemoteFile, parquet_images
from protocols.datasets import data
from protocols.datasets.by_name import data_set

FOLDER = "resisc45"
IMAGES = "NWPU-RESISC45"
CLASSES = tuple(name.replace(" ", "_") for name in data.class_names("resisc45"))
HUB = "https://huggingface.co/datasets/torchgeo/resisc45/resolve/a826b44d938a883185f11ebe3d512d38b464312f"
LISTS = {
    "resisc45-train.txt": "md5:b5a4c05a37de15e4ca886696a85c403e",
    "resisc45-test.txt": "md5:3dda9e4988b47eb1de9f07993653eb08",
}


def _read(copy: Copy, split: str) -> ImageSource:
    """Lines "airplane_001.jpg"; the image lies in the folder of its class."""
    path = copy.folder / f"resisc45-{split}.txt"
    images = copy.text_lines(path)
    folders = [image.rpartition("_")[0] for image in images]
    labels = copy.labels_by_name(path, images, folders, CLASSES)
    return copy.files([f"{IMAGES}/{folder}/{image}" for folder, image in zip(folders, images)], labels)


def _read_parquet(copy: Copy, split: str) -> ImageSource:
    return parquet_images(copy, f"{split}-*.parquet", classes=CLASSES)


resisc45 = data_set(
    "resisc45",
    Layout(
        FOLDER,
        (IMAGES, *LISTS),
        _read,
        download=(
            RemoteFile((f"{HUB}/NWPU-RESISC45.zip",), digest="md5:75206b2e16446591afa88e2628744886", into=FOLDER),
            *(RemoteFile((f"{HUB}/{name}",), digest=digest, into=FOLDER) for name, digest in LISTS.items()),
        ),
        official=LISTS,
    ),
    Layout(
        FOLDER,
        ("train-*.parquet", "test-*.parquet"),
        _read_parquet,
        download=(
            HubFiles(
                "timm/resisc45",
                ("data/train-*.parquet", "data/test-*.parquet"),
                into=FOLDER,
                revision="fe12fc5f1b7606543b0355eda392f1ddc54625c6",
            ),
        ),
    ),
    version="1",
    summary="45 kinds of scenes seen from above",
    origin="https://gcheng-nwpu.github.io/#Datasets; for research, no licence stated",
    train_images=18_900,
    test_images=6300,
    image_size=(256, 256),
    templates="eurosat",
)
