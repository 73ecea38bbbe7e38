"""ImageNet (ILSVRC 2012, 1000 classes) and three lists of 100 of its classes; the validation images are the test set.

Labels are positions among the sorted WordNet ids of the list. All lists read the same folder, "imagenet": class folders
train/n01440764/... and val/n01440764/..., as torchvision's ImageNet unpacks the official archives (a folder that holds
the classes of one list only serves that list), or the hub's parquet files. The licence forbids an automatic download.

    imagenet100             the first 100 ids, the list of DER and Continual-CLIP, with CLAP4CLIP's names
    imagenet100-cil         the same classes with OpenAI's later names, as ZSCL's class-incremental program has them
    imagenet100-attriclip   AttriCLIP's 100 classes, each with the name of its id
    imagenet100-attriclip-as-published   the same with AttriCLIP's own list of names, 18 of which fit another class
"""

from functools import partial

from bench import Copy, Dataset, ImageSource, Layout, parquet_images
from protocols.datasets import data
from protocols.datasets.by_name import data_set

FOLDER = {"train": "train", "test": "val"}
ORIGIN = "https://image-net.org/challenges/LSVRC/2012; non-commercial research and education, after registration"
BY_HAND = (
    "register at https://image-net.org, download ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar and unpack them into "
    "class folders, train/n01440764/... and val/n01440764/..., as torchvision.datasets.ImageNet does, or take the parquet "
    "files of huggingface.co/datasets/ILSVRC/imagenet-1k"
)
REPEATED = ("missile", "sunglasses")  # CLIP's own list of names has each for two classes
ALL_IDS = data.wordnet_ids("imagenet")


def _read(ids: tuple[str, ...], copy: Copy, split: str) -> ImageSource:
    return copy.files(*copy.class_folders(ids, below=FOLDER[split]))


def _read_parquet(ids: tuple[str, ...], copy: Copy, split: str) -> ImageSource:
    """The hub's labels are positions among the 1000 sorted ids; its names for them are long lists of synonyms."""
    pattern = {"train": "train-*.parquet", "test": "validation-*.parquet"}[split]
    return parquet_images(copy, pattern, classes=ids, listed=ALL_IDS, trust_names=False)


def _imagenet(name: str, templates: str, train_images: int | None, test_images: int, summary: str) -> Dataset:
    ids = data.wordnet_ids(name)
    return data_set(
        name,
        Layout("imagenet", ("train", "val"), partial(_read, ids), by_hand=BY_HAND),
        Layout("imagenet", ("train-*.parquet", "validation-*.parquet"), partial(_read_parquet, ids), by_hand=BY_HAND),
        version="1",
        summary=summary,
        origin=ORIGIN,
        train_images=train_images,
        test_images=test_images,
        image_size=(375, 500),
        templates=templates,
        repeated_names=REPEATED,
    )


imagenet = _imagenet("imagenet", "imagenet", 1_281_167, 50_000, summary="ImageNet, 1000 classes")
imagenet100 = _imagenet(
    "imagenet100", "imagenet", None, 5_000, summary="ImageNet's first 100 classes, with CLAP4CLIP's names"
)
imagenet100_cil = _imagenet(
    "imagenet100-cil", "good-photo", None, 5_000,
    summary="ImageNet's first 100 classes, with the names and template of ZSCL's class-incremental program",
)  # fmt: skip
imagenet100_attriclip = _imagenet(
    "imagenet100-attriclip", "imagenet", None, 5_000, summary="AttriCLIP's 100 ImageNet classes, rightly named"
)
imagenet100_attriclip_as_published = _imagenet(
    "imagenet100-attriclip-as-published", "imagenet", None, 5_000,
    summary="AttriCLIP's 100 ImageNet classes with its own list of names, 18 of which fit another class",
)  # fmt: skip
