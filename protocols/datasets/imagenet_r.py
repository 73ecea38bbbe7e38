"""ImageNet-R: renditions (art, cartoons, toys, ...) of 200 ImageNet classes (Hendrycks et al., ICCV 2021).

The archive has no split. Two published lists of 6000 test images are in use, which share only 1174 files, so that
numbers of papers that follow different lists cannot be compared exactly:

    imagenet-r        CLAP4CLIP's list; labels are the sorted WordNet ids
    imagenet-r-coda   the list of L2P, CODA-Prompt and mammoth (CGIL), with their label order, which is not sorted

All images of the archive that are not on the list are training images. A test image that a copy lacks is left out.
"""

from functools import partial

import numpy as np

from bench import Copy, Dataset, ImageSource, Layout, RemoteFile
from protocols.datasets import data
from protocols.datasets.by_name import data_set

DOWNLOAD = RemoteFile(
    ("https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",), digest="md5:a61312130a589d0ca1a8fca1f2bd3337"
)


def _read(ids: tuple[str, ...], test_list: str, copy: Copy, split: str) -> ImageSource:
    paths, labels = copy.class_folders(ids)
    on_list = set(data.lines(test_list))
    is_test = np.array([path in on_list for path in paths])
    return copy.files(paths, labels).select(np.flatnonzero(is_test if split == "test" else ~is_test))


def _imagenet_r(name: str, test_list: str, templates: str, summary: str) -> Dataset:
    ids = data.wordnet_ids(name)
    return data_set(
        name,
        Layout("imagenet-r", (min(ids), max(ids)), partial(_read, ids, test_list), download=(DOWNLOAD,)),
        version="1",
        summary=summary,
        origin="https://github.com/hendrycks/imagenet-r; MIT for the collection, images from the web",
        train_images=24_000,
        test_images=6_000,
        templates=templates,
    )


imagenet_r = _imagenet_r(
    "imagenet-r", "imagenet-r-test-clap.txt.gz", "imagenet", summary="renditions of 200 ImageNet classes, CLAP4CLIP's split"
)
imagenet_r_coda = _imagenet_r(
    "imagenet-r-coda", "imagenet-r-test-coda.txt.gz", "photo",
    summary="renditions of 200 ImageNet classes, split and label order of L2P, CODA-Prompt and CGIL",
)  # fmt: skip
