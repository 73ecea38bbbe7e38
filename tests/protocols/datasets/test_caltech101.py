"""Caltech-101: MTIL's random split over torchvision's order, and damaged copies."""

import io
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from torchvision import datasets

from bench.errors import BenchError
from bench.images import downloads
from bench.images.layouts import get
from bench.system import registry
from tests.protocols.datasets.miniatures import check_data_set
from tests.protocols.datasets.miniatures_part2 import same_as_torchvision, write_caltech101


def caltech101():
    return registry.load("dataset", "caltech101")


def test_from_class_folders(folders, capsys):
    write_caltech101(folders.data)
    check_data_set("caltech101", folders, train=1212, test=303)
    assert "note: caltech101: 1212 train images" in capsys.readouterr().err


def test_the_split_is_torchs_random_split_over_torchvisions_order(folders):
    write_caltech101(folders.data)
    whole = datasets.Caltech101(folders.data)
    train = int(0.8 * len(whole))
    parts = torch.utils.data.random_split(whole, [train, len(whole) - train], generator=torch.Generator().manual_seed(42))
    for split, part in zip(("train", "test"), parts):
        same_as_torchvision(caltech101().open_split(split, folders), part)


def test_whole_the_split_has_mtils_sizes():
    from protocols.datasets.splits import random_split

    rows = random_split(8677)
    assert (len(rows["train"]), len(rows["test"])) == (6941, 1736)
    assert rows["train"][:4].tolist() == [8512, 5748, 7753, 4345]  # torch 2.15; the split must not drift with torch


def test_the_background_is_no_class(folders):
    write_caltech101(folders.data)
    for split in ("train", "test"):
        assert not any("BACKGROUND" in path for path in caltech101().open_split(split, folders).paths)
    assert caltech101().info.class_names[:5] == ("off-center face", "centered face", "leopard", "motorbike", "accordion")


def test_a_missing_class_folder_is_named(folders):
    write_caltech101(folders.data)
    place = folders.data / "caltech101" / "101_ObjectCategories" / "yin_yang"
    shutil.rmtree(place)
    with pytest.raises(BenchError, match=f"caltech101: {place}: the folder of class 'yin and yang symbol' is missing"):
        caltech101().open_split("train", folders)


def test_a_truncated_image_is_named(folders):
    write_caltech101(folders.data)
    source = caltech101().open_split("train", folders)
    path = folders.data / "caltech101" / source.paths[3]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BenchError, match=f"caltech101: {path}: not a whole image"):
        source.read(np.arange(5))


def test_the_official_archive_is_unpacked_to_where_it_is_read(folders, tmp_path, monkeypatch):
    """A zip with a tar in it, as CaltechDATA has it, put into the data folder by hand."""
    write_caltech101(tmp_path)
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        archive.add(tmp_path / "caltech101" / "101_ObjectCategories", "101_ObjectCategories")
    folders.data.mkdir()
    with zipfile.ZipFile(folders.data / "caltech-101.zip", "w") as archive:
        archive.writestr("caltech-101/101_ObjectCategories.tar.gz", inner.getvalue())
        archive.writestr("caltech-101/Annotations.tar", b"")
    monkeypatch.setattr(downloads, "verify", lambda path, digest: None)  # the digest is the real archive's
    layout = get(caltech101().info, caltech101().layouts, folders.data)
    assert layout.present(folders.data)
    assert len(caltech101().open_split("test", folders)) == 303


def test_a_corrupted_archive_is_named(folders):
    folders.data.mkdir()
    (folders.data / "caltech-101.zip").write_bytes(b"PK\x03\x04 half of an archive")
    with pytest.raises(BenchError, match="caltech-101.zip is not the file that was expected") as caught:
        caltech101().open_split("train", folders)
    assert "\n" not in str(caught.value)
    assert not (folders.data / "caltech101").exists()
