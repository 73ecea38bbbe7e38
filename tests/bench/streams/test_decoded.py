"""Decoded images kept in memory: the same pixels, decoded once, never more than the limit."""

import numpy as np
import pytest
import torch
from PIL import Image

from bench.errors import BenchError
from bench.images.dataset import ImageSource
from bench.images.files import ImageFiles
from bench.streams import decoded, stream
from bench.streams.decoded import DecodedImages, MemoryLimit, parse_bytes
from bench.streams.features import FeatureStore
from bench.streams.stream import Split
from bench.system import memory
from tests.small_world import SIZE

N = 7
ONE = SIZE * SIZE * 3  # bytes of a square


@pytest.fixture
def files(tmp_path) -> ImageFiles:
    """JPEGs of different sizes, one of which is a square of the backbone's size already."""
    rng = np.random.default_rng(0)
    for k in range(N):
        shape = (SIZE, SIZE) if k == 3 else (40 + 5 * k, 70 - 4 * k)
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(tmp_path / f"{k}.jpg")
    return ImageFiles(
        tmp_path, [f"{k}.jpg" for k in range(N)], np.arange(N), tmp_path / "cache", lambda path, why: BenchError(why)
    )


@pytest.fixture
def store_of(monkeypatch):
    """store_of(limit): the process's store is a new one with room for so many bytes."""

    def make(limit: int) -> DecodedImages:
        images = DecodedImages(lambda held: limit)
        monkeypatch.setattr(stream, "DECODED", images)
        return images

    return make


def split_of(source: ImageSource, backbone, folder, rows=None) -> Split:
    rows = np.arange(len(source)) if rows is None else np.asarray(rows)
    return Split([(source, rows)], torch.from_numpy(rows), FeatureStore(backbone, folder))


def literally(source: ImageSource, backbone) -> torch.Tensor:
    """Every image through the transform that belongs to the weights."""
    return torch.stack([backbone.transform(Image.fromarray(image)) for image in source.read(np.arange(len(source)))])


def test_pixels_are_those_of_the_weights_own_transform(files, small_backbone, tmp_path, store_of):
    images, split = store_of(N * ONE), split_of(files, small_backbone, tmp_path)
    expected = literally(files, small_backbone)
    for _ in range(3):  # decoded, then twice from memory
        assert torch.equal(split.pixels(), expected)
    assert images.decoded == N
    assert torch.equal(split.pixels(view="mirrored"), expected.flip(-1))
    assert torch.equal(split.pixels(torch.tensor([6, 0, 6])), expected[[6, 0, 6]])
    assert images.decoded == N


def test_nothing_is_kept_of_a_split_that_does_not_fit_as_a_whole(files, small_backbone, tmp_path, store_of):
    images, split = store_of(N * ONE - 1), split_of(files, small_backbone, tmp_path)
    for rows in torch.arange(N).split(2):
        split.pixels(rows)
    assert images.bytes == 0 and images.decoded == N
    assert torch.equal(split.pixels(), literally(files, small_backbone))
    assert images.decoded == 2 * N


def test_images_of_older_splits_make_room(files, small_backbone, tmp_path, store_of):
    images = store_of(5 * ONE)
    first, second = (split_of(files, small_backbone, tmp_path, rows) for rows in ((0, 1, 2), (3, 4, 5)))
    first.pixels()
    first.pixels(torch.tensor([0, 2]))  # asked for later than image 1
    second.pixels()
    assert images.bytes == 5 * ONE
    before = images.decoded
    first.pixels(torch.tensor([0, 2]))
    second.pixels()
    assert images.decoded == before
    first.pixels(torch.tensor([1]))
    assert images.decoded == before + 1


def test_a_shrinking_limit_frees_memory(files, small_backbone, tmp_path, store_of):
    images, split = store_of(N * ONE), split_of(files, small_backbone, tmp_path)
    split.pixels()
    images.limit = lambda held: 2 * ONE
    split.pixels(torch.tensor([5]))
    assert images.bytes == 2 * ONE
    images.clear()
    assert images.bytes == 0
    assert torch.equal(split.pixels(), literally(files, small_backbone))


def test_runs_that_open_the_files_again_find_them_decoded(files, small_backbone, tmp_path, store_of):
    images = store_of(N * ONE)
    split_of(files, small_backbone, tmp_path).pixels()
    again = ImageFiles(files.root, files.paths.tolist(), files.labels, files.cache, files.complain)
    split_of(again, small_backbone, tmp_path).pixels()
    assert images.decoded == N


def test_other_images_under_the_same_rows_are_not_mixed_up(small_backbone, tmp_path, store_of):
    store_of(100 * ONE)
    rng = np.random.default_rng(0)
    for _ in range(2):
        source = ImageSource.from_arrays(rng.integers(0, 256, (3, 50, 60, 3), dtype=np.uint8), np.arange(3))
        assert torch.equal(split_of(source, small_backbone, tmp_path).pixels(), literally(source, small_backbone))


def test_squares_that_lie_in_memory_are_not_kept_twice(small_backbone, tmp_path, store_of):
    images = store_of(100 * ONE)
    arrays = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    source = ImageSource.from_arrays(arrays, np.arange(4)).select(np.array([3, 1]))
    assert torch.equal(split_of(source, small_backbone, tmp_path).pixels(), literally(source, small_backbone))
    assert images.bytes == 0 and images.decoded == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_scaling_on_a_gpu_gives_the_bits_of_the_cpu(small_backbone):
    squares = list(np.random.default_rng(0).integers(0, 256, (64, SIZE, SIZE, 3), dtype=np.uint8))
    squares.append(np.arange(ONE, dtype=np.int64).astype(np.uint8).reshape(SIZE, SIZE, 3))
    expected = small_backbone.preprocess(squares)
    scaling = (torch.tensor(255.0).cuda(), small_backbone.mean.cuda(), small_backbone.std.cuda())
    pixels = torch.from_numpy(np.stack(squares)).cuda().permute(0, 3, 1, 2).float()
    for value, step in zip(scaling, ("div_", "sub_", "div_")):
        getattr(pixels, step)(value)
    assert torch.equal(pixels.cpu(), expected)


# -- how much may be kept -----------------------------------------------------------------------------------------


def test_a_quarter_of_what_is_available_with_what_is_held(monkeypatch):
    monkeypatch.delenv(decoded.SETTING, raising=False)
    monkeypatch.setattr(decoded, "available_memory", lambda: 1000)
    limit = MemoryLimit()
    assert limit(600) == 400
    monkeypatch.setattr(decoded, "available_memory", lambda: 0)
    assert limit(600) == 400  # measured a moment ago
    monkeypatch.setattr(decoded, "MEASURE_EVERY", -1)
    assert limit(600) == 150


def test_the_user_may_choose(monkeypatch):
    for text, expected in (("0", 0), ("16G", 16 * 2**30), ("1.5k", 1536), ("500 MB", 500 * 2**20), ("123", 123)):
        monkeypatch.setenv(decoded.SETTING, text)
        assert MemoryLimit()(10**12) == expected == parse_bytes(text)
    for text in ("much", "-1", "5X", "G"):
        with pytest.raises(BenchError, match="BENCH_IMAGE_MEMORY=.*give a number of bytes"):
            parse_bytes(text)


def test_limits_of_containers_count(tmp_path, monkeypatch):
    meminfo, own = tmp_path / "meminfo", tmp_path / "own"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    own.write_text("0::/job/step\n")
    job = tmp_path / "groups" / "job"
    (job / "step").mkdir(parents=True)
    (job / "memory.max").write_text("1000000\n")
    (job / "memory.current").write_text("900000\n")
    (job / "memory.stat").write_text("anon 5\ninactive_file 300000\n")
    (job / "step" / "memory.max").write_text("max\n")
    (job / "step" / "memory.current").write_text("900000\n")
    real = memory.Path
    moved = {"/proc/meminfo": meminfo, "/proc/self/cgroup": own}
    monkeypatch.setattr(memory, "Path", lambda path: real(moved.get(str(path), path)))
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    assert memory.available_memory() == 400_000
    (job / "step" / "memory.max").write_text("950000\n")
    assert memory.available_memory() == 50_000
    (job / "step" / "memory.current").write_text("960000\n")
    assert memory.available_memory() == 0
    own.write_text("3:cpu,memory:/job\n0::/elsewhere\n")
    old = tmp_path / "groups" / "memory" / "job"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("700000\n")
    (old / "memory.usage_in_bytes").write_text("100000\n")
    assert memory.available_memory() == 600_000
    own.unlink()
    assert memory.available_memory() == 8000 * 1024
