"""The mini world: what it draws, what it says, and what it never shows in pretraining."""

import json
import re
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file

from bench.system.randomness import stable_seed
from protocols.datasets.mini_world import downstream, drawing
from protocols.datasets.mini_world.factors import (
    HELD_OUT,
    HELD_OUT_OBJECTS,
    HELD_OUT_SHAPES,
    NUMBERS,
    OBJECTS,
    SHAPES,
    SYNONYMS,
    world_seed,
)
from protocols.datasets.mini_world.figures import FIGURES
from protocols.datasets.mini_world.landuse import KINDS as LAND
from protocols.datasets.mini_world.mixture import KINDS, mixture
from protocols.datasets.mini_world.tools import pin
from protocols.datasets.mini_world.tools.pretrain import Recipe, pretrain


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, list[str], list[dict]]:
    return mixture(2500, seed=5)


def spellings(name: str) -> tuple[str, ...]:
    return (name, *SYNONYMS.get(name, ()))


def held_out_phrases() -> re.Pattern[str]:
    """Every way in which a caption could name a held-out composition."""
    forms = []
    for colour, noun in HELD_OUT:
        for c, n in product(spellings(colour), spellings(noun)):
            forms += [f"{c} {n}", f"{n} in {c}"]
    return re.compile(r"\b(" + "|".join(map(re.escape, forms)) + r")\b")


def test_held_out_pairs_are_twenty_shapes_and_sixty_objects_with_every_noun_used():
    assert len(set(HELD_OUT_SHAPES)) == 20 and len(set(HELD_OUT_OBJECTS)) == 60
    assert {noun for _, noun in HELD_OUT_SHAPES} == set(SHAPES)
    assert {noun for _, noun in HELD_OUT_OBJECTS} == set(OBJECTS)
    uses = [sum(noun == used for _, used in HELD_OUT) for noun in SHAPES + OBJECTS]
    assert set(uses) <= {1, 2, 3}


def test_every_colour_and_noun_of_a_held_out_pair_is_seen_apart_in_pretraining(drawn):
    figures = [figure for factor in drawn[2] for figure in factor["figures"]]
    assert {colour for colour, _ in HELD_OUT} <= {colour for colour, _ in figures}
    assert {noun for _, noun in HELD_OUT} <= {noun for _, noun in figures}


def test_scan_recognises_a_held_out_pair_in_any_spelling():
    scan = held_out_phrases()
    for colour, noun in HELD_OUT:
        assert scan.search(f"a photo of a {spellings(colour)[-1]} {spellings(noun)[-1]}.")
        assert scan.search(f"{noun} in {colour} for sale")


def assert_free_of_held_out_pairs(texts: list[str], factors: list[dict]) -> None:
    scan = held_out_phrases()
    assert [text for text in texts if scan.search(text)] == []
    assert [factor for factor in factors if HELD_OUT & set(factor["figures"])] == []


def test_held_out_pairs_do_not_occur_in_a_little_pretraining_data(drawn):
    assert_free_of_held_out_pairs(*drawn[1:])


@pytest.mark.slow
def test_held_out_pairs_do_not_occur_in_twenty_thousand_pretraining_pairs():
    assert_free_of_held_out_pairs(*mixture(20_000, seed=7)[1:])


def test_pretraining_never_names_land_seen_from_above(drawn):
    words = {word for text in drawn[1] for word in re.findall(r"[a-z]+", text)}
    assert words & {word for kind in LAND for word in kind.split()} <= {"car"}


def test_mixture_depends_on_its_seed_alone():
    images, texts, factors = mixture(200, seed=3)
    mixture(10, seed=4)
    again_images, again_texts, again_factors = mixture(200, seed=3)
    assert np.array_equal(images, again_images) and texts == again_texts and factors == again_factors
    assert not np.array_equal(images, mixture(200, seed=4)[0])


def test_mixture_shows_every_kind_in_about_its_share(drawn):
    images, texts, factors = drawn
    assert images.shape == (2500, 32, 32, 3) and images.dtype == np.uint8 and len(texts) == 2500
    for kind, (share, _) in KINDS.items():
        found = np.mean([factor["kind"] == kind for factor in factors])
        assert abs(found - share) < 0.03, kind
    assert 0.002 < np.mean([factor["junk"] for factor in factors]) < 0.025


def test_some_captions_train_the_text_positions_of_long_learned_prompts(drawn):
    # Sixteen learned context tokens, a class name and the end token need about 25 positions.
    tokenizer = SimpleTokenizer()
    lengths = [len(tokenizer.encode(text)) + 2 for text in drawn[1]]
    assert np.median(lengths) <= 14 and 0.02 < np.mean(np.array(lengths) >= 25) < 0.06


@pytest.mark.parametrize("name", downstream.DATASETS)
def test_test_split_is_class_major_and_has_its_pinned_pixels(name):
    dataset = downstream.DATASETS[name]
    images, labels = downstream.draw(name, "test")
    assert images.shape == (len(labels), 32, 32, 3) and images.dtype == np.uint8 and labels.dtype == np.int64
    assert labels.tolist() == [k for k in range(len(dataset.class_names)) for _ in range(dataset.test_per_class)]
    assert downstream.digest(images, labels) == downstream.pinned_digest(name, "test")


@pytest.mark.slow
@pytest.mark.parametrize("name", downstream.DATASETS)
def test_train_split_has_its_pinned_pixels_and_shares_no_image_with_the_test_split(name):
    images, labels = downstream.draw(name, "train")
    assert downstream.digest(images, labels) == downstream.pinned_digest(name, "train")
    tests, _ = downstream.draw(name, "test")
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in tests}


def test_a_data_set_is_the_same_in_another_process():
    code = (
        "from protocols.datasets.mini_world.downstream import digest, draw;"
        "draw('counts', 'test'); print(digest(*draw('sketches', 'test')))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == downstream.digest(*downstream.draw("sketches", "test"))


@pytest.mark.slow
def test_pretraining_twice_gives_the_same_weights_and_another_seed_gives_others(tmp_path):
    files = [tmp_path / f"{run}.safetensors" for run in range(3)]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        pretrain(Recipe(steps=3, seed=seed, batch=16, chunks=1, chunk=200), file)
    first, again, other = (load_file(file) for file in files)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


def test_digest_notices_one_pixel_and_one_label():
    images, labels = np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 1])
    one_pixel, one_label = images.copy(), np.array([0, 0])
    one_pixel[1, 4, 5, 2] = 1
    assert len({downstream.digest(*pair) for pair in ((images, labels), (one_pixel, labels), (images, one_label))}) == 3


def test_unknown_data_set_or_split_says_what_exists():
    with pytest.raises(ValueError, match="train and test of counts, digits"):
        downstream.draw("birds", "test")
    with pytest.raises(ValueError, match="no 'validation' split"):
        downstream.draw("counts", "validation")


def test_class_names_of_the_table():
    classes = {name: dataset.class_names for name, dataset in downstream.DATASETS.items()}
    sizes = {name: len(names) for name, names in classes.items()}
    assert sizes == {
        "counts": 8, "digits": 10, "landuse": 10, "letters": 20, "objects": 60,
        "scenes": 12, "shapes": 20, "sketches": 20, "textures": 14,
    }  # fmt: skip
    assert all(len(set(names)) == len(names) for names in classes.values())
    digits = downstream.DATASETS["digits"]
    assert digits.template.format(digits.class_names[3]) == "a photo of the digit three."
    assert classes["counts"][:2] == ("one dot", "two dots") and classes["letters"][8] == "letter k"


def test_counts_show_as_many_dots_as_their_name_says(monkeypatch):
    drawn = []
    monkeypatch.setattr(downstream, "ellipse", lambda *args: drawn.append(args) or drawing.ellipse(*args))
    for label, name in enumerate(downstream.DATASETS["counts"].class_names):
        drawn.clear()
        downstream._dots(label, np.random.default_rng(label))
        assert NUMBERS[len(drawn)] == name.split()[0]
        centres, radius = np.array([dot[:2] for dot in drawn]), drawn[-1][2]
        gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2) + 9 * np.eye(len(drawn))
        assert gaps.min() > 2 * radius


def test_coverage_of_a_box_is_exact_whatever_its_orientation():
    expected = np.zeros((drawing.CANVAS, drawing.CANVAS), bool)
    expected[10:20, 30:50] = True
    square = drawing.box(30, 10, 50, 20)
    assert np.array_equal(drawing.coverage([square]), expected)
    assert np.array_equal(drawing.coverage([square[::-1]]), expected)


def test_contours_of_opposite_orientation_cut_a_hole():
    outer, inner = drawing.box(10, 10, 40, 40), drawing.box(20, 20, 30, 30)
    assert drawing.coverage([outer, inner]).sum() == 900
    assert drawing.coverage([outer, inner[::-1]]).sum() == 900 - 100


def test_figures_outside_the_frame_are_clipped():
    assert drawing.coverage([drawing.box(-50, -50, 200, 200)]).all()
    assert not drawing.coverage([drawing.box(-50, -50, -10, -10)]).any()


def test_canvas_lays_a_quarter_covered_pixel_over_its_background():
    canvas = drawing.Canvas()
    canvas.fill([drawing.box(0, 0, 1, 3)], np.array([90.0, 0, 0]))  # a third of the first pixel
    image = canvas.over(np.full((32, 32, 3), 30.0))
    assert image[0, 0] == pytest.approx([50, 20, 20]) and image[0, 1] == pytest.approx([30, 30, 30])


def test_every_figure_lies_in_the_unit_box_up_to_a_petal():
    assert set(FIGURES) == set(SHAPES) | set(OBJECTS)
    for name, parts in FIGURES.items():
        points = np.concatenate([contour for part in parts for contour in part.contours])
        assert np.abs(points).max() <= 1.05, name


def test_world_seed_tells_anagrams_apart_and_never_changes():
    assert world_seed("shapes") != world_seed("phases")
    assert world_seed(0, "shapes", "train") == 5221420223564627327
    assert world_seed(0, "shapes", "train") != stable_seed(0, "shapes", "train")  # what runs draw from is another rule


def test_pinning_writes_the_digests_beside_the_drawings(tmp_path, monkeypatch):
    monkeypatch.setattr(downstream, "DATASETS", {"counts": downstream.DATASETS["counts"]})
    monkeypatch.setattr(downstream, "__file__", str(tmp_path / "downstream.py"))
    pin.main()
    expected = {split: downstream.pinned_digest("counts", split) for split in ("train", "test")}
    assert json.loads((tmp_path / "digests.json").read_text()) == {"counts": expected}
