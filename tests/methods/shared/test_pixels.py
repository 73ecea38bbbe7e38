"""Pixels to learn from: random crops against torchvision's and what they promise, mirroring, batches."""

import math
from types import SimpleNamespace

import pytest
import torch
from torchvision.transforms.functional import InterpolationMode, resized_crop

from bench.errors import BenchError
from bench.system.randomness import Draws
from methods.bounds.joint import Joint
from methods.fine_tuning.finetune import FineTune, FineTuneSettings
from methods.fine_tuning.lwf import LwF
from methods.shared.batches import Batch, training_batches
from methods.shared.pixels import (
    crop_boxes,
    mirror,
    mirrored_half,
    pixel_batches,
    random_crops,
    resized_crops,
    training_pixels,
)

DRAWS = Draws("test", "crops", 0)


def pixels(n: int, size: int) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [7, 32, 97])
@pytest.mark.parametrize("smallest", [0.02, 0.5, 0.9])
def test_crops_are_torchvisions(size, smallest):
    images = pixels(12, size)
    boxes = crop_boxes(12, size, smallest, torch.Generator().manual_seed(1))
    ours = resized_crops(images, boxes)
    for image, box, crop in zip(images, boxes.tolist(), ours):
        theirs = resized_crop(image, *box, [size, size], InterpolationMode.BICUBIC, antialias=True)
        torch.testing.assert_close(crop, theirs, rtol=1e-5, atol=2e-5)


def test_the_whole_image_stays_exactly_as_it_is():
    images = pixels(2, 33)
    assert torch.equal(resized_crops(images, torch.tensor([[0, 0, 33, 33]] * 2)), images)


def test_boxes_lie_inside_and_have_the_area_and_ratio_asked_for():
    size, smallest = 224, 0.4
    top, left, height, width = crop_boxes(4000, size, smallest, torch.Generator().manual_seed(2)).T.double()
    assert int(top.min()) >= 0 and int(left.min()) >= 0
    assert int((top + height).max()) <= size and int((left + width).max()) <= size
    area, ratio = height * width / size**2, width / height
    assert smallest - 0.01 < float(area.min()) < smallest + 0.02 and float(area.max()) > 0.95
    assert 3 / 4 - 0.02 < float(ratio.min()) < 0.8 and 1.25 < float(ratio.max()) < 4 / 3 + 0.02
    assert abs(float(ratio.log().mean())) < 0.02  # as often wide as high
    assert abs(float((top + height / 2).mean()) - size / 2) < 2


def test_an_image_for_which_no_box_fits_is_taken_whole():
    boxes = crop_boxes(2000, 100, 0.999, torch.Generator().manual_seed(3))
    whole = (boxes == torch.tensor([0, 0, 100, 100])).all(dim=1)
    assert whole.any() and not whole.all()
    assert (boxes[~whole, 2] * boxes[~whole, 3] >= 0.985 * 100**2).all()


def test_draws_belong_to_their_purpose():
    images = pixels(5, 32)
    first = random_crops(images, 0.5, DRAWS, "crop", 1)
    assert torch.equal(first, random_crops(images, 0.5, DRAWS, "crop", 1))
    assert not torch.equal(first, random_crops(images, 0.5, DRAWS, "crop", 2))
    assert random_crops(images, 1.0, DRAWS, "crop", 1) is images
    assert math.isclose(float(first.mean()), float(images.mean()), abs_tol=0.1)


def test_crops_of_no_image_are_no_crops():
    assert random_crops(pixels(0, 32), 0.5, DRAWS, "crop").shape == (0, 3, 32, 32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_crops_on_a_gpu_are_those_of_the_cpu():
    images = pixels(8, 64)
    crops = random_crops(images.cuda(), 0.3, DRAWS, "crop")
    torch.testing.assert_close(crops.cpu(), random_crops(images, 0.3, DRAWS, "crop"), rtol=1e-4, atol=1e-4)


# -- in fine-tuning -----------------------------------------------------------------------------------------------


def images_trained_on(backbone, stream, **settings) -> list[torch.Tensor]:
    """The pixels of every update on the first task."""
    seen = []

    class Watched(FineTune):
        def loss(self, pixels, labels, task):
            seen.append(pixels)
            return super().loss(pixels, labels, task)

    quick = FineTuneSettings(lr=1e-3, iterations=3, warmup=1, batch_size=4, **settings)
    Watched(quick, backbone, stream.scenario, Draws("test", "crops", 0)).learn(stream.tasks[0])
    return seen


def test_fine_tuning_sees_other_crops_in_each_update(small_backbone, make_stream):
    stream = make_stream(per_class=2)  # four images: every update sees all of them
    images = {image.numpy().tobytes() for image in stream.tasks[0].train.pixels()}
    plain = images_trained_on(small_backbone, stream, crop_scale=1.0)
    assert all({image.numpy().tobytes() for image in batch} == images for batch in plain)
    cropped = torch.cat(images_trained_on(small_backbone, stream, crop_scale=0.5))
    assert len({image.numpy().tobytes() for image in cropped}) == len(cropped) == 16
    again = torch.cat(images_trained_on(small_backbone, stream, crop_scale=0.5))
    assert torch.equal(cropped, again)


def test_the_parts_of_a_batch_are_cropped_as_the_batch_is(small_backbone, make_stream):
    stream = make_stream(per_class=3)
    whole = images_trained_on(small_backbone, stream)
    parts = images_trained_on(small_backbone, stream, accumulate=2)
    assert len(parts) > len(whole) and torch.equal(torch.cat(whole), torch.cat(parts))


def test_papers_crop_and_the_mini_world_does_not():
    for method in (FineTune, Joint, LwF):
        assert method.settings_for("mtil-order1").crop_scale == 0.9
        assert method.settings_for("mini60-6x10").crop_scale == 1.0
    for share in (0.0, -1.0, 1.1):
        with pytest.raises(BenchError, match="crop_scale=.*choose a share above 0 and at most 1"):
            FineTuneSettings(crop_scale=share)


def test_mirroring_image_by_image():
    images = pixels(3, 4)
    found = mirror(images, torch.tensor([False, True, False]))
    assert torch.equal(found[[0, 2]], images[[0, 2]]) and torch.equal(found[1], images[1].flip(-1))


@pytest.mark.parametrize("n", [0, 1, 6, 7])
def test_half_of_the_images_are_mirrored_others_for_another_purpose(n):
    found = mirrored_half(n, DRAWS, "view", 0)
    assert found.shape == (n,) and int(found.sum()) == n // 2
    assert torch.equal(found, mirrored_half(n, DRAWS, "view", 0))
    assert n < 6 or not torch.equal(found, mirrored_half(n, DRAWS, "view", 1))


def test_training_pixels_are_cropped_by_step_and_mirrored_by_epoch(make_stream):
    """The draws that results have been published with; an image is cropped first and mirrored then."""
    train, rows = make_stream().tasks[0].train, torch.tensor([3, 0, 2])
    plain = train.pixels(rows)

    def found(step: int, epoch: int, crop: float = 1.0, mirrored: bool = False) -> torch.Tensor:
        return training_pixels(train, Batch(step, epoch, rows), DRAWS, crop=crop, mirrored=mirrored, purpose=("stage", 1))

    assert torch.equal(found(5, 2), plain)
    cropped = random_crops(plain, 0.5, DRAWS, "stage", 1, "crop", 5)
    assert torch.equal(found(5, 2, crop=0.5), cropped)
    flipped = mirrored_half(len(train), DRAWS, "stage", 1, "view", 2)[rows]
    assert torch.equal(found(5, 2, crop=0.5, mirrored=True), mirror(cropped, flipped))


def test_pixel_batches_are_the_training_batches_with_what_is_read_of_them():
    size = {"images": 10, "batch_size": 4, "epochs": 2, "budget": 17, "purpose": ("order", 1)}
    method = SimpleNamespace(draws=DRAWS, device=torch.device("cpu"))
    found = list(pixel_batches(method, lambda batch: 10 * batch.rows + batch.step, **size))
    expected = list(training_batches(DRAWS, **size))
    assert len(found) == len(expected) == 5
    for (batch, read), own in zip(found, expected):
        assert (batch.step, batch.epoch) == (own.step, own.epoch) and torch.equal(read, 10 * own.rows + own.step)
