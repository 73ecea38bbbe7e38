"""Which files below a folder are images, which folders are entered, and what is said of the rest."""

import os

import pytest

from bench.errors import BenchError
from bench.images.listing import PILLOW, TORCHVISION, Walk, images_below, in_words


def touch(*paths) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_every_kind_that_pillow_reads_by_itself_is_listed():
    from PIL import Image

    Image.init()
    needs_more = {"BUFR", "EPS", "FITS", "FLI", "GBR", "GRIB", "HDF5", "IPTC", "MPEG", "PCD", "PIXAR", "WMF"}
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in needs_more}
    assert readable <= set(PILLOW) and set(TORCHVISION) < set(PILLOW)


def test_suffixes_in_any_case_and_nothing_hidden(tmp_path):
    touch(*(tmp_path / name for name in ("a.JPG", "b.Jfif", "c.gif", ".d.png", "._e.jpg", "Thumbs.db", "desktop.ini")))
    touch(*(tmp_path / place / "x.png" for place in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found")))
    touch(tmp_path / "deep" / "er" / "f.webp", tmp_path / "deep" / ".hidden" / "g.png")
    assert images_below(tmp_path) == ["a.JPG", "b.Jfif", "c.gif", "deep/er/f.webp"]


def test_what_is_left_out_is_counted(tmp_path):
    touch(*(tmp_path / name for name in ("a.jpg", "b.txt", "c.txt", "d", "e.heic", "sub/f.mp4", ".g", "Thumbs.db")))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "absent.png")
    walk = Walk()
    assert walk.images_below(tmp_path) == ["a.jpg"]
    assert walk.left_out == {".txt": 2, "no suffix": 1, ".heic": 1, ".mp4": 1, ".png": 2}
    said = in_words(walk.left_out, "pets")
    assert said == "7 files in pets are no images that are read (.png 2, .txt 2, .heic 1, .mp4 1, no suffix 1)"
    assert in_words({}, "pets") == "" and in_words({".a": 1}, "x") == "1 file in x is no image that is read (.a 1)"


@pytest.mark.parametrize("to", [".", "..", "../..", "../../../pets"])
def test_a_link_to_a_folder_above_is_refused(tmp_path, to):
    touch(tmp_path / "pets" / "cat" / "1.jpg", tmp_path / "pets" / "cat" / "deep" / "2.jpg")
    (tmp_path / "pets" / "cat" / "deep" / "again").symlink_to(to)
    with pytest.raises(BenchError, match="deep/again: a link to a folder above it") as error:
        images_below(tmp_path / "pets" / "cat")
    assert "\n" not in str(error.value)


def test_two_links_that_lead_to_each_other_end(tmp_path):
    touch(tmp_path / "cat" / "1.jpg")
    (tmp_path / "cat" / "a").symlink_to("b")
    (tmp_path / "cat" / "b").symlink_to("a")
    assert images_below(tmp_path / "cat") == ["1.jpg"]


def test_a_folder_that_is_linked_twice_below_a_class_is_read_once(tmp_path):
    touch(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "cat").mkdir()
    for name in ("first", "second"):
        (tmp_path / "cat" / name).symlink_to(tmp_path / "elsewhere")
    assert len(images_below(tmp_path / "cat")) == 1
    (tmp_path / "dog").symlink_to(tmp_path / "elsewhere")
    walk = Walk()
    walk.images_below(tmp_path / "cat", "cat/")
    with pytest.raises(BenchError, match="are the same folder; its images can belong to one class of one split only"):
        walk.images_below(tmp_path / "dog", "dog/")


def test_links_to_files_and_to_folders_elsewhere_are_followed(tmp_path):
    touch(tmp_path / "store" / "1.jpg", tmp_path / "store" / "more" / "2.jpg")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "one.jpg").symlink_to(tmp_path / "store" / "1.jpg")
    (tmp_path / "cat" / "more").symlink_to(tmp_path / "store" / "more")
    assert images_below(tmp_path / "cat") == ["one.jpg", "more/2.jpg"]
