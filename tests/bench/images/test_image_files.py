"""Images on disk: decoded when read, hashed once, named when damaged."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.errors import BenchError
from bench.images import digests as file_digests
from bench.images.decoding import decode
from bench.images.digests import FileDigests
from bench.images.files import ImageFiles
from bench.images.listing import images_below
from bench.system.files import file_digest


def complain(path: Path, why: str) -> BenchError:
    return BenchError(f"set: {path}: {why}")


def write(path: Path, value: int, size=(5, 7), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), (value, 2 * value % 256, 3 * value % 256)).convert(mode).save(path)


@pytest.fixture
def source(tmp_path) -> ImageFiles:
    """Six images of three classes, the k-th filled with 10 k."""
    for k in range(6):
        write(tmp_path / "images" / f"{k}.png", 10 * k)
    labels = np.array([0, 1, 2, 0, 1, 2])
    return ImageFiles(tmp_path / "images", [f"{k}.png" for k in range(6)], labels, tmp_path / "cache", complain)


def test_images_are_read_in_the_order_asked_for(source):
    images = source.read(np.array([4, 0]))
    assert [image.shape for image in images] == [(5, 7, 3)] * 2
    assert [int(image[0, 0, 0]) for image in images] == [40, 0]
    assert images[0].dtype == np.uint8 and images[0].flags.writeable


def test_many_images_are_read_on_several_threads_in_the_same_order(source):
    rows = np.tile(np.arange(6), 20)
    assert [int(image[0, 0, 0]) for image in source.read(rows)] == (10 * rows).tolist()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    write(path, 0, mode=mode)
    assert decode(path).shape == (5, 7, 3)


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_what_is_no_whole_image_is_named(source, content):
    path = source.root / "2.png"
    path.write_bytes(path.read_bytes()[:45] if content is None else content)
    with pytest.raises(BenchError, match=f"set: {path}: not a whole image"):
        source.read(np.array([0, 2]))


def test_a_truncated_jpeg_is_not_filled_up_with_grey(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="not a whole image .*truncated"):
        decode(tmp_path / "a.jpg")


def test_a_missing_file_is_named(source):
    (source.root / "3.png").unlink()
    with pytest.raises(BenchError, match="3.png: the file is missing"):
        source.read(np.array([3]))
    with pytest.raises(BenchError, match="3.png: No such file"):
        source.digest  # noqa: B018


def test_a_limited_source_reads_and_hashes_only_what_it_keeps(source, monkeypatch):
    opened = []
    monkeypatch.setattr(file_digests, "file_digest", lambda path: opened.append(path.name) or file_digest(path))
    kept = source.limited(1)
    assert opened == []
    assert kept.digest != source.select(np.array([3, 4, 5])).digest
    assert opened == ["0.png", "1.png", "2.png", "3.png", "4.png", "5.png"]
    assert kept.labels.tolist() == [0, 1, 2]
    assert [int(image[0, 0, 0]) for image in kept.read(np.arange(3))] == [0, 10, 20]


def test_the_digest_depends_on_content_order_and_labels(source):
    digest = source.digest
    assert source.select(np.array([1, 0, 2, 3, 4, 5])).digest != digest
    relabelled = ImageFiles(source.root, source.paths, source.labels[::-1], source.cache, complain)
    assert relabelled.digest != digest
    write(source.root / "5.png", 51)
    again = ImageFiles(source.root, source.paths, source.labels, source.cache, complain)
    assert again.digest != digest


def test_image_digests_are_those_of_the_files(source):
    expected = [hashlib.sha256((source.root / f"{k}.png").read_bytes()).hexdigest() for k in (3, 1)]
    assert source.image_digests(np.array([3, 1])) == expected


# -- remembered digests -----------------------------------------------------------------------------------------


@pytest.fixture
def digests(tmp_path, monkeypatch):
    """Digests of three files, and the list of files that were read for them."""
    for name in ("a", "b", "c d"):
        (tmp_path / "root" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "root" / name).write_text(name)
    read = []
    monkeypatch.setattr(file_digests, "file_digest", lambda path: read.append(path.name) or file_digest(path))
    return FileDigests(tmp_path / "root", tmp_path / "cache"), read


def test_a_file_is_read_once(digests):
    known, read = digests
    first = known.of(["a", "c d"])
    assert first == [hashlib.sha256(text.encode()).hexdigest() for text in ("a", "c d")]
    assert known.of(["c d", "a", "b"]) == [first[1], first[0], hashlib.sha256(b"b").hexdigest()]
    assert sorted(read) == ["a", "b", "c d"]


def test_a_changed_file_is_read_again(digests):
    known, read = digests
    before = known.of(["a", "b"])
    (known.root / "a").write_text("other")
    after = known.of(["a", "b"])
    assert after[0] != before[0] and after[1] == before[1]
    same_size = (known.root / "b").stat()
    (known.root / "b").write_text("B")
    os.utime(known.root / "b", ns=(same_size.st_atime_ns, same_size.st_mtime_ns + 1))
    assert known.of(["b"]) != before[1:]
    assert read == ["a", "b", "a", "b"]


@pytest.mark.parametrize("content", ["", "nonsense\n", "0" * 64 + " 1\n"])
def test_a_damaged_memory_costs_time_only(digests, content):
    known, _ = digests
    first = known.of(["a"])
    known.path.write_text(content)
    assert known.of(["a"]) == first


# -- folders ----------------------------------------------------------------------------------------------------


def test_images_below_a_folder_are_sorted_as_torchvision_sorts_them(tmp_path):
    from torchvision.datasets import ImageFolder

    for name in ("b.jpg", "a.JPEG", "10.png", "9.png", "x/2.jpg", "x-y/1.jpg", "x/z/3.jpg"):
        write(tmp_path / "class" / name, 1)
    (tmp_path / "class" / "notes.txt").write_text("")
    expected = [path for path, _ in ImageFolder(tmp_path).samples]
    assert [str(tmp_path / path) for path in images_below(tmp_path / "class", "class/")] == expected
    (tmp_path / "class" / "._a.jpg").write_text("what an archive keeps of attributes")
    assert len(images_below(tmp_path / "class")) == len(expected)
