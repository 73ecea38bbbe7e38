"""Stanford Cars: devkit and image folders, parquet, and mammoth's tensors."""

import json

import numpy as np
import pytest
import torch
from scipy.io import savemat

from bench.errors import BenchError
from bench.system import registry
from tests.protocols.datasets.miniatures import check_data_set, encoded, picture, write_parquet, write_picture

MODELS = registry.load("dataset", "stanford-cars").info.class_names
BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def write_annotations(path, labels) -> None:
    """A 1 x n array of records, as Matlab keeps them: box, class 1..196, file name."""
    fields = [*((name, object) for name in BOX), ("class", object), ("fname", object)]
    records = np.empty((1, len(labels)), dtype=fields)
    for number, label in enumerate(labels):
        records[0, number] = (1, 1, 10, 10, label + 1, f"{number + 1:05d}.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"annotations": records})


def write_devkit(folder) -> None:
    """Images are numbered in no order of classes."""
    for number, (split, annotations) in enumerate(
        (("cars_train", "devkit/cars_train_annos.mat"), ("cars_test", "cars_test_annos_withlabels.mat"))
    ):
        labels = [(37 * k) % 196 for k in range(196)]
        write_annotations(folder / annotations, labels)
        for k, label in enumerate(labels):
            mode = "L" if k == 3 else "RGB"  # some images of the original are grey
            write_picture(folder / split / f"{k + 1:05d}.jpg", label, number, mode=mode)


def test_cars_from_devkit_and_folders(folders):
    write_devkit(folders.data / "stanford_cars")
    check_data_set("stanford-cars", folders, train=196, test=196)
    source = registry.load("dataset", "stanford-cars").open_split("train", folders)
    assert source.labels[:4].tolist() == [0, 37, 74, 111]
    assert source.paths[1] == "cars_train/00002.jpg"


def write_hub(folder, names) -> None:
    for number, split in enumerate(("train", "test")):
        images = [{"bytes": encoded(MODELS.index(name), number), "path": None} for name in MODELS]
        labels = [names.index(name) for name in MODELS]
        write_parquet(folder / f"{split}-00000-of-00001.parquet", {"image": images, "label": labels}, names)


def test_cars_from_parquet_by_the_names_that_it_gives(folders):
    names = sorted(MODELS)  # another order than the devkit's
    assert names != list(MODELS)
    write_hub(folders.data / "stanford_cars", names)
    check_data_set("stanford-cars", folders, train=196, test=196)
    assert registry.load("dataset", "stanford-cars").open_split("test", folders).labels.tolist() == list(range(196))


def test_a_model_that_is_no_car_of_ours_is_named(folders):
    write_hub(folders.data / "stanford_cars", list(MODELS))
    path = folders.data / "stanford_cars" / "train-00000-of-00001.parquet"
    images = [{"bytes": encoded(0), "path": None}] * 2
    write_parquet(path, {"image": images, "label": [0, 1]}, [MODELS[0], "Trabant 601 1964"])
    with pytest.raises(BenchError, match=f"{path}: it has a class 'Trabant 601 1964'"):
        registry.load("dataset", "stanford-cars").open_split("train", folders)


def write_tensors(folder, names) -> None:
    folder.mkdir(parents=True)
    for number, split in enumerate(("train", "test")):
        images = np.stack([np.array(picture(k, number, size=(14, 14))) for k in range(196)])
        torch.save(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), folder / f"{split}_images.pt")
        torch.save(torch.tensor([names.index(name) for name in MODELS]), folder / f"{split}_labels.pt")
    (folder / "class_names.json").write_text(json.dumps(dict(enumerate(names))))


@pytest.mark.parametrize("order", [list, sorted])
def test_cars_from_mammoths_tensors(folders, order):
    write_tensors(folders.data / "cars196", order(MODELS))
    check_data_set("stanford-cars", folders, train=196, test=196)
    source = registry.load("dataset", "stanford-cars").open_split("test", folders)
    assert source.labels.tolist() == list(range(196))
    assert (source.read(np.array([5]))[0] == np.array(picture(5, 1, size=(14, 14)))).all()


def test_tensors_with_names_of_their_own_are_noted(folders, capsys):
    write_tensors(folders.data / "cars196", list(MODELS))
    (folders.data / "cars196" / "class_names.json").write_text(json.dumps({k: f"car {k}" for k in range(196)}))
    registry.load("dataset", "stanford-cars").open_split("test", folders)
    assert "spells class names differently" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [lambda content: content[:300], lambda content: b"not Matlab"])
def test_a_damaged_devkit_is_named(folders, damage):
    write_devkit(folders.data / "stanford_cars")
    path = folders.data / "stanford_cars" / "devkit" / "cars_train_annos.mat"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BenchError, match=f"stanford-cars: {path}: the file is damaged"):
        registry.load("dataset", "stanford-cars").open_split("train", folders)


def test_a_label_out_of_range_and_a_missing_image_are_named(folders):
    write_devkit(folders.data / "stanford_cars")
    write_annotations(folders.data / "stanford_cars" / "devkit" / "cars_train_annos.mat", [0, 196])
    with pytest.raises(BenchError, match="label 196 of cars_train/00002.jpg is out of range 0..195"):
        registry.load("dataset", "stanford-cars").open_split("train", folders)
    path = folders.data / "stanford_cars" / "cars_test" / "00009.jpg"
    path.unlink()
    with pytest.raises(BenchError, match=f"{path}: the file is missing"):
        registry.load("dataset", "stanford-cars").open_split("test", folders).read(np.arange(20))


def test_a_hostile_tensor_file_is_refused(folders, tmp_path):
    import os

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    write_tensors(folders.data / "cars196", list(MODELS))
    torch.save(Hostile(), folders.data / "cars196" / "train_images.pt")
    with pytest.raises(BenchError, match="train_images.pt: the file is damaged"):
        registry.load("dataset", "stanford-cars").open_split("train", folders)
    assert not (tmp_path / "owned").exists()
