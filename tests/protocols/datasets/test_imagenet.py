"""ImageNet, its lists of 100 classes, and TinyImageNet, from class folders, annotation lists and parquet."""

import numpy as np
import pytest

from bench.errors import BenchError
from bench.system import registry
from protocols.datasets import data
from tests.protocols.datasets.miniatures import check_data_set, encoded, picture, write_parquet, write_picture

ALL_IDS = data.wordnet_ids("imagenet")


def write_class_folders(folder, ids, train: int = 2, test: int = 1) -> None:
    """train/n01440764/n01440764_0.JPEG, val/n01440764/ILSVRC2012_val_0.JPEG; the number in the pixels is that of the id."""
    for label, wordnet_id in enumerate(ids):
        for number in range(train):
            write_picture(folder / "train" / wordnet_id / f"{wordnet_id}_{number}.JPEG", label, number)
        for number in range(test):
            write_picture(folder / "val" / wordnet_id / f"ILSVRC2012_val_{label}{number}.JPEG", label, 5 + number)


def test_imagenet_from_class_folders(folders):
    write_class_folders(folders.data / "imagenet", ALL_IDS, train=1)
    check_data_set("imagenet", folders, train=1000, test=1000)


@pytest.mark.parametrize("name", [f"imagenet100{end}" for end in ("", "-cil", "-attriclip", "-attriclip-as-published")])
def test_a_list_of_100_classes_needs_only_their_folders(folders, name):
    write_class_folders(folders.data / "imagenet", data.wordnet_ids(name))
    check_data_set(name, folders, train=200, test=100)


def test_a_list_of_100_classes_takes_its_own_from_the_whole(folders):
    wanted = data.wordnet_ids("imagenet100-attriclip")
    others = [wordnet_id for wordnet_id in ALL_IDS if wordnet_id not in wanted][:30]
    write_class_folders(folders.data / "imagenet", sorted([*wanted, *others]))
    source = registry.load("dataset", "imagenet100-attriclip").open_split("train", folders)
    assert [path.split("/")[1] for path in source.paths] == [wordnet_id for wordnet_id in wanted for _ in range(2)]


def test_the_lists_are_what_the_papers_say():
    first, later = (registry.load("dataset", name).info for name in ("imagenet100", "imagenet100-cil"))
    assert data.wordnet_ids("imagenet100") == data.wordnet_ids("imagenet100-cil") == ALL_IDS[:100]
    assert first.class_names[97] == "drake" and later.class_names[97] == "duck"
    right, published = (registry.load("dataset", f"imagenet100-attriclip{end}").info for end in ("", "-as-published"))
    assert (published.class_names[69], right.class_names[69]) == ("shower cap", "mousetrap")
    assert list(data.wordnet_ids("imagenet100-attriclip")) == sorted(data.wordnet_ids("imagenet100-attriclip"))


def write_hub_imagenet(folder, per_class: int = 1) -> None:
    """Two shards a split, labels among the 1000 sorted ids, named by synonyms."""
    for number, split in enumerate(("train", "validation")):
        for part in range(2):
            labels = list(range(500 * part, 500 * part + 500))
            images = [{"bytes": encoded(label, number, size=(6, 6)), "path": None} for label in labels]
            names = [f"name {label}, another name" for label in range(1000)]
            write_parquet(folder / f"{split}-0000{part}-of-00002.parquet", {"image": images, "label": labels}, names)


def test_imagenet_from_parquet_whole_and_in_part(folders):
    write_hub_imagenet(folders.data / "imagenet")
    assert registry.load("dataset", "imagenet").open_split("train", folders).labels.tolist() == list(range(1000))
    check_data_set("imagenet100-attriclip", folders, train=100, test=100)
    source = registry.load("dataset", "imagenet100-attriclip").open_split("train", folders)
    original = ALL_IDS.index(data.wordnet_ids("imagenet100-attriclip")[99])
    difference = source.read(np.array([99]))[0].astype(int) - np.array(picture(original, 0, size=(6, 6)))
    assert np.abs(difference).mean() < 12, "the image of the wrong class (JPEG changes pixels a little)"


def test_imagenet_is_never_downloaded_and_says_what_to_do(folders, monkeypatch):
    monkeypatch.delenv("BENCH_OFFLINE")
    with pytest.raises(BenchError) as caught:
        registry.load("dataset", "imagenet100").open_split("train", folders)
    assert all(part in str(caught.value) for part in ("imagenet100", str(folders.data / "imagenet"), "https://image-net.org"))
    assert "download failed" not in str(caught.value)


def test_a_missing_class_folder_is_named(folders):
    write_class_folders(folders.data / "imagenet", ALL_IDS[:100])
    for image in (folders.data / "imagenet" / "val" / ALL_IDS[40]).iterdir():
        image.unlink()
    with pytest.raises(BenchError, match=f"{ALL_IDS[40]}: the folder of class 'American chameleon' holds no image"):
        registry.load("dataset", "imagenet100").open_split("test", folders)
    (folders.data / "imagenet" / "val" / ALL_IDS[40]).rmdir()
    with pytest.raises(BenchError, match=f"{ALL_IDS[40]}: the folder of class 'American chameleon' is missing"):
        registry.load("dataset", "imagenet100").open_split("test", folders)


def test_a_truncated_image_is_named_when_it_is_read(folders):
    write_class_folders(folders.data / "imagenet", ALL_IDS[:100])
    path = folders.data / "imagenet" / "val" / ALL_IDS[7] / "ILSVRC2012_val_70.JPEG"
    path.write_bytes(path.read_bytes()[:-120])
    source = registry.load("dataset", "imagenet100").open_split("test", folders)
    source.read(np.array([6]))
    with pytest.raises(BenchError, match=f"imagenet100: {path}: not a whole image"):
        source.read(np.array([6, 7]))


# -- TinyImageNet -----------------------------------------------------------------------------------------------

TINY = data.wordnet_ids("tiny-imagenet")


def write_tiny(folder, sorted_into_folders: bool = False) -> None:
    """train/ID/images/*.JPEG; val/images with a list, or val/ID/images as many scripts rearrange it."""
    lines = []
    for label, wordnet_id in enumerate(TINY):
        for number in range(2):
            write_picture(folder / "train" / wordnet_id / "images" / f"{wordnet_id}_{number}.JPEG", label, number)
        name = f"val_{(label * 37) % 200}.JPEG"  # the list is not sorted by class
        place = folder / "val" / (f"{wordnet_id}/images" if sorted_into_folders else "images")
        write_picture(place / name, label, 5)
        lines.append(f"{name}\t{wordnet_id}\t0\t32\t44\t62\n")
    (folder / "wnids.txt").write_text("\n".join(TINY))
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))


@pytest.mark.parametrize("sorted_into_folders", [False, True])
def test_tiny_imagenet_from_its_archive(folders, sorted_into_folders):
    write_tiny(folders.data / "tiny-imagenet-200", sorted_into_folders)
    check_data_set("tiny-imagenet", folders, train=400, test=200)
    source = registry.load("dataset", "tiny-imagenet").open_split("test", folders)
    row = int(np.flatnonzero(source.labels == 3)[0])
    difference = source.read(np.array([row]))[0].astype(int) - np.array(picture(3, 5))
    assert np.abs(difference).mean() < 12


def test_tiny_imagenet_labels_are_lines_of_the_id_list_and_not_sorted():
    assert list(TINY) != sorted(TINY)
    assert TINY[0] == "n02124075" and registry.load("dataset", "tiny-imagenet").info.class_names[0] == "Egyptian Mau"


@pytest.mark.parametrize("named", [False, True])
def test_the_hub_sorts_the_ids_of_tiny_imagenet(folders, named):
    for number, split in enumerate(("train", "valid")):
        images = [{"bytes": encoded(TINY.index(wordnet_id), number), "path": None} for wordnet_id in sorted(TINY)]
        path = folders.data / "tiny-imagenet-200" / f"{split}-00000-of-00001-1359597a978bc4fa.parquet"
        write_parquet(path, {"image": images, "label": list(range(200))}, sorted(TINY) if named else ())
    check_data_set("tiny-imagenet", folders, train=200, test=200)
    source = registry.load("dataset", "tiny-imagenet").open_split("train", folders)
    assert source.labels.tolist() == [TINY.index(wordnet_id) for wordnet_id in sorted(TINY)]


def test_a_class_that_is_none_of_tiny_imagenets_is_named(folders):
    write_tiny(folders.data / "tiny-imagenet-200")
    path = folders.data / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace(TINY[9], "n00000000"))
    with pytest.raises(BenchError, match=f"{path}: image val_133.JPEG is of class 'n00000000'"):
        registry.load("dataset", "tiny-imagenet").open_split("test", folders)
