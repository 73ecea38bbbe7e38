"""FGVC-Aircraft: 100 variants of aircraft (Maji et al., 2013); official training (3334) and test list (3333).

The official validation list is not used, as in MTIL. The banner at the bottom of every image, which names its
photographer, stays, as it does in torchvision and ZSCL.
"""

from bench import Copy, ImageSource, Layout, RemoteFile
from protocols.datasets.by_name import data_set

URL = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz"


def _read(copy: Copy, split: str) -> ImageSource:
    """Lines "1025794 707-320": image and variant, which may hold spaces and slashes."""
    path = copy.folder / "data" / f"images_variant_{split}.txt"
    entries = [line.partition(" ") for line in copy.text_lines(path)]
    images = [image for image, _, _ in entries]
    labels = copy.labels_by_name(path, images, [variant.strip() for _, _, variant in entries], copy.info.class_names)
    return copy.files([f"data/images/{image}.jpg" for image in images], labels)


fgvc_aircraft = data_set(
    "fgvc-aircraft",
    Layout(
        "fgvc-aircraft-2013b",
        ("data/images", "data/images_variant_train.txt", "data/images_variant_test.txt"),
        _read,
        download=(RemoteFile((URL,)),),  # no digest of it is published
    ),
    version="1",
    summary="100 variants of aircraft",
    origin="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft; for non-commercial research only",
    train_images=3334,
    test_images=3333,
    image_size=(700, 1024),
)
