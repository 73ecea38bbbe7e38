"""FGVC-Aircraft from its annotation files, as torchvision reads it, and damaged copies."""

import numpy as np
import pytest
from torchvision import datasets

from bench.errors import BenchError
from bench.system import registry
from tests.protocols.datasets.miniatures import check_data_set
from tests.protocols.datasets.miniatures_part2 import same_as_torchvision, write_aircraft


def open_split(folders, split="train"):
    return registry.load("dataset", "fgvc-aircraft").open_split(split, folders)


def test_from_annotation_files(folders):
    write_aircraft(folders.data)
    check_data_set("fgvc-aircraft", folders, train=200, test=100)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_images_and_names_are_torchvisions(folders, split):
    write_aircraft(folders.data)
    reference = datasets.FGVCAircraft(folders.data, split=split, annotation_level="variant")
    same_as_torchvision(open_split(folders, split), reference)
    assert tuple(reference.classes) == registry.load("dataset", "fgvc-aircraft").info.class_names


def test_variants_with_spaces_and_slashes_are_read(folders):
    write_aircraft(folders.data)
    names = registry.load("dataset", "fgvc-aircraft").info.class_names
    assert {"F-16A/B", "BAE 146-200", "Cessna 172"} <= {names[k] for k in open_split(folders).labels}


def test_a_variant_that_is_none_is_named(folders):
    write_aircraft(folders.data)
    path = folders.data / "fgvc-aircraft-2013b" / "data" / "images_variant_test.txt"
    image, variant = path.read_text().splitlines()[5].split(" ", 1)
    path.write_text(path.read_text().replace(variant, "Concorde"))
    with pytest.raises(BenchError, match=f"image {image} is of class 'Concorde', which is none of the 100 classes"):
        open_split(folders, "test")


def test_an_image_that_is_no_image_is_named(folders):
    write_aircraft(folders.data)
    path = folders.data / "fgvc-aircraft-2013b" / "data" / "images" / "0034309.jpg"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(BenchError, match=r"fgvc-aircraft: .*0034309\.jpg: not a whole image"):
        open_split(folders).read(np.array([0]))
