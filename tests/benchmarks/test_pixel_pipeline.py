"""How fast training gets its pixels, from a folder of JPEGs: pytest tests/benchmarks/test_pixel_pipeline.py."""

import time

import numpy as np
import pytest
import torch
from PIL import Image

from bench.clip.backbone import load
from bench.errors import BenchError
from bench.images.files import ImageFiles
from bench.streams import stream
from bench.streams.decoded import DecodedImages
from bench.streams.features import FeatureStore
from bench.streams.stream import Split
from bench.system.parallel import in_background
from methods.shared.pixels import crop_boxes, resized_crops

IMAGES, BATCH = 128, 32
ROOM = 10**9  # bytes for decoded images, more than there are


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Smooth JPEGs of 500 x 375 pixels, a common size of photographs in data sets."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for k in range(IMAGES):
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{k}.jpg", quality=90)
    return folder


@pytest.fixture
def split(folder, monkeypatch):
    """split(room): the folder as a split for the mini CLIP, with so many bytes for decoded images."""

    def make(room: int) -> Split:
        monkeypatch.setattr(stream, "DECODED", DecodedImages(lambda held: room))
        names = [f"{k}.jpg" for k in range(IMAGES)]
        source = ImageFiles(folder, names, np.zeros(IMAGES), folder / "cache", lambda path, why: BenchError(why))
        assert source.digest  # hashed once in the life of a folder
        return Split(
            [(source, np.arange(IMAGES))], torch.zeros(IMAGES), FeatureStore(load("mini", None, "cpu"), folder / "cache")
        )

    return make


def epoch(split: Split) -> None:
    for rows in torch.arange(IMAGES).split(BATCH):
        split.pixels(rows)


@pytest.mark.parametrize("room", [0, ROOM], ids=["decoding", "decoded"])
def test_pixels_of_an_epoch(benchmark, split, room):
    images = split(room)
    epoch(images)
    benchmark.pedantic(epoch, args=(images,), rounds=3)


@pytest.mark.slow
def test_later_epochs_are_many_times_faster(split):
    """At least ten times, where the tower takes 32 pixels and a photograph has 500."""
    seconds = []
    for room in (0, ROOM):
        images = split(room)
        epoch(images)
        seconds.append(min(_timed(epoch, images) for _ in range(3)))
    assert seconds[0] > 10 * seconds[1]


@pytest.mark.parametrize("background", [False, True], ids=["in-turn", "prefetched"])
def test_an_epoch_through_the_image_tower(benchmark, split, background):
    """What a thread for decoding would bring on the CPU; there it is off, since both compete for the same cores."""
    images, tower = split(0), load("mini", None, "cpu")

    def encode() -> None:
        batches = torch.arange(IMAGES).split(BATCH)
        pairs = in_background(batches, images.pixels) if background else ((rows, images.pixels(rows)) for rows in batches)
        for _, pixels in pairs:
            tower.encode_images(pixels)

    encode()
    benchmark.pedantic(encode, rounds=3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_does_not_wait_for_images_that_are_decoded_meanwhile(split):
    """With work on the GPU that takes about as long as decoding does, prefetching hides most of the shorter one."""
    images, weights = split(0), torch.randn(8192, 8192, device="cuda")

    def work(repeats: int) -> None:
        for _ in range(repeats):
            weights @ weights
        torch.cuda.synchronize()

    work(3)
    decoding = _timed(epoch, images)
    repeats = max(1, round(decoding / (IMAGES / BATCH) / (_timed(work, 20) / 20)))

    def loop(pairs) -> None:
        for _ in pairs:
            work(repeats)

    batches = torch.arange(IMAGES).split(BATCH)
    in_turn = _timed(loop, ((rows, images.pixels(rows)) for rows in batches))
    assert _timed(loop, in_background(batches, images.pixels)) < 0.85 * in_turn


def test_random_crops_of_a_batch(benchmark):
    """64 images of 224 pixels; a step of a ViT-B on the same cores takes some hundred times as long."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.randn(64, 3, 224, 224, device=device)
    boxes = crop_boxes(64, 224, 0.9, torch.Generator().manual_seed(0))

    def crop() -> None:
        resized_crops(images, boxes).sum().item()

    crop()
    benchmark.pedantic(crop, rounds=3)


def _timed(function, *arguments) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started
