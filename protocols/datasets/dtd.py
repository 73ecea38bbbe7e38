"""DTD, the Describable Textures Dataset: 47 textures (Cimpoi et al., CVPR 2014).

The official partition 1 of the lists in labels/: train and test; its validation images are not used, as in MTIL. Read from
where torchvision puts it (dtd/dtd) or from the archive unpacked in the data folder (dtd).
"""

from bench import Copy, ImageSource, Layout, RemoteFile
from protocols.datasets.by_name import data_set

ARCHIVE = RemoteFile(
    ("https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",),
    digest="md5:fff73e5086ae6bdbea199a49dfb8a4c1",
    into="dtd",
)
NEEDS = ("images", "labels/train1.txt", "labels/test1.txt")


def _read(copy: Copy, split: str) -> ImageSource:
    path = copy.folder / "labels" / f"{split}1.txt"
    images = copy.text_lines(path)  # "banded/banded_0002.jpg"
    names = [image.split("/")[0] for image in images]
    labels = copy.labels_by_name(path, images, names, copy.info.class_names)
    return copy.files([f"images/{image}" for image in images], labels)


dtd = data_set(
    "dtd",
    Layout("dtd/dtd", NEEDS, _read, download=(ARCHIVE,)),
    Layout("dtd", NEEDS, _read),
    version="1",
    summary="47 describable textures",
    origin="https://www.robots.ox.ac.uk/~vgg/data/dtd; for research purposes",
    train_images=1880,
    test_images=1880,
    image_size=(480, 500),
)
