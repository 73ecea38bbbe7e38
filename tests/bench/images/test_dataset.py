"""A copy of a data set: the lists and folders it is read from, and errors that name the file."""

import numpy as np
import pytest

from bench.errors import BenchError
from bench.images.dataset import Copy, DatasetInfo

CLASSES = ("tabby cat", "dog")


@pytest.fixture
def copy(tmp_path) -> Copy:
    return Copy(DatasetInfo("pets", "1", CLASSES, ("a {}",), "", ""), tmp_path, tmp_path / "cache")


def test_lines_of_a_list_come_without_empty_ones_and_spaces_around(copy):
    path = copy.folder / "list.txt"
    path.write_text("  a/1.jpg \n\nb/2.jpg\r\n \t\n")
    assert copy.text_lines(path) == ["a/1.jpg", "b/2.jpg"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"], ids=["missing", "not text"])
def test_a_list_that_cannot_be_read_is_named(copy, content):
    path = copy.folder / "list.txt"
    if content:
        path.write_bytes(content)
    with pytest.raises(BenchError, match=r"pets: .*list.txt: the file is .*; put a good copy there"):
        copy.text_lines(path)


def test_labels_by_name_follow_the_classes_that_are_given(copy):
    labels = copy.labels_by_name(copy.folder / "list.txt", ["1.jpg", "2.jpg", "3.jpg"], ["b", "a", "b"], ["a", "b"])
    assert labels.tolist() == [1, 0, 1] and labels.dtype == np.int64


def test_a_name_that_is_no_class_is_said_with_its_image(copy):
    with pytest.raises(BenchError, match=r"list.txt: image 2.jpg is of class 'c', which is none of the 2 classes"):
        copy.labels_by_name(copy.folder / "list.txt", ["1.jpg", "2.jpg"], ["b", "c"], ["a", "b"])


@pytest.mark.parametrize(("names", "image"), [(None, "image 1"), (["1.jpg", "2.jpg"], "2.jpg")])
def test_a_label_out_of_range_is_said_with_its_image(copy, names, image):
    with pytest.raises(BenchError, match=f"labels.bin: label 2 of {image} is out of range 0..1; put a good copy there"):
        copy.labels([1, 2], copy.folder / "labels.bin", names)


def test_class_folders_are_read_in_the_order_of_the_classes(copy, capsys):
    for name in ("cat/2.jpg", "cat/1.png", "dog/deep/1.jpg", "dog/list.txt"):
        (copy.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (copy.folder / name).touch()
    paths, labels = copy.class_folders(["dog", "cat"])
    assert paths == ["dog/deep/1.jpg", "cat/1.png", "cat/2.jpg"]
    assert labels.tolist() == [0, 1, 1] and labels.dtype == np.int64
    assert capsys.readouterr().err == ""  # lists lie there by design


def test_folders_of_a_copy_are_sorted_and_litter_is_passed_over(copy):
    for name in ("b", "B", "a", "__MACOSX", ".hidden"):
        (copy.folder / name).mkdir()
    (copy.folder / "file").touch()
    assert copy.sub_folders() == ["B", "a", "b"]
    with pytest.raises(BenchError, match="nowhere: the file is missing"):
        copy.sub_folders("nowhere")
