"""TinyImageNet: 200 ImageNet classes at 64x64 pixels (Stanford CS231n, 2015); the validation images are the test set.

Labels follow the archive's wnids.txt, as ZSCL's class-incremental program has them: not the sorted ids. Read from the
archive's folders (val with its list of annotations, or already sorted into class folders), or from the parquet files of
the Hugging Face hub, whose labels are the sorted ids.
"""

from bench import Copy, HubFiles, ImageSource, Layout, RemoteFile, parquet_images
from protocols.datasets import data
from protocols.datasets.by_name import data_set

FOLDER = "tiny-imagenet-200"
IDS = data.wordnet_ids("tiny-imagenet")


def _read(copy: Copy, split: str) -> ImageSource:
    if split == "train":
        return copy.files(*copy.class_folders(IDS, below="train"))
    if not (copy.folder / "val" / "images").is_dir():
        return copy.files(*copy.class_folders(IDS, below="val"))
    return _read_annotations(copy)


def _read_annotations(copy: Copy) -> ImageSource:
    """Lines "val_0.JPEG  n03444034  0  32  44  62": image, class, and a box around the object."""
    path = copy.folder / "val" / "val_annotations.txt"
    fields = [line.split() for line in copy.text_lines(path)]
    with copy.reading(path):
        images, ids = [row[0] for row in fields], [row[1] for row in fields]
    return copy.files([f"val/images/{image}" for image in images], copy.labels_by_name(path, images, ids, IDS))


def _read_parquet(copy: Copy, split: str) -> ImageSource:
    pattern = {"train": "train-*.parquet", "test": "valid-*.parquet"}[split]
    return parquet_images(copy, pattern, classes=IDS, listed=sorted(IDS))


tiny_imagenet = data_set(
    "tiny-imagenet",
    Layout(
        FOLDER,
        ("train", "val"),
        _read,
        download=(
            RemoteFile(
                ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",), digest="md5:90528d7ca1a48142e341f4ef8d21d0de"
            ),
        ),
    ),
    Layout(
        FOLDER,
        ("train-*.parquet", "valid-*.parquet"),
        _read_parquet,
        download=(HubFiles("zh-plus/tiny-imagenet", ("data/train-*.parquet", "data/valid-*.parquet"), into=FOLDER),),
    ),
    version="1",
    summary="200 ImageNet classes at 64x64 pixels",
    origin="http://cs231n.stanford.edu/tiny-imagenet-200.zip; ImageNet's terms: non-commercial research and education",
    train_images=100_000,
    test_images=10_000,
    image_size=(64, 64),
    templates="bad-photo",
)
