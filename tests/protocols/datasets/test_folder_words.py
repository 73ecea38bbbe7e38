"""A folder of images in its owner's words: templates in the name of the stream, dataset.toml beside the class folders."""

import numpy as np
import pytest
from PIL import Image

from bench.errors import BenchError
from bench.images.dataset import Folders
from bench.streams import identity
from bench.streams.names import find, find_protocol_or_dataset, from_anywhere, split_list
from bench.streams.protocol import Protocol, TaskPlan, one_task_per_dataset
from bench.system import registry
from protocols.datasets.image_folder import TEMPLATE, image_folder

CLASSES = ("n01", "pear", "plum")


@pytest.fixture
def fruit(tmp_path):
    """Three classes, two images of each in each split."""
    noise = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in CLASSES:
            folder = tmp_path / "fruit" / split / name
            folder.mkdir(parents=True)
            for k in range(2):
                Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    return tmp_path / "fruit"


def test_templates_in_the_name_are_those_of_the_stream(fruit):
    plain = find(f"folder:{fruit}-3x1")
    own = find(f'folder:{fruit}-3x1+template="a blurry photo of a {{}}."')
    assert own.scenario(0).templates == (("a blurry photo of a {}.",),) * 3
    assert own.name == f"folder:fruit-3x1+template={own.templates_digest()}" and own.version == plain.version
    assert own.templates_digest() != plain.templates_digest()
    for written in ("template=a blurry photo of a {}.", "template='a blurry photo of a {}.'"):  # as a shell leaves it
        assert find(f"folder:{fruit}-3x1+{written}").name == own.name


def test_several_templates_stand_beside_other_options_in_any_order(fruit):
    name = f"folder:{fruit}-3x1+template=a {{}} + more/less.+exemplars=2-per-class+template=\"{{}}, say+so\""
    found = find(name)
    assert found.templates == ("a {} + more/less.", "{}, say+so") and found.exemplars == "2/class"
    assert find(from_anywhere(name)).name == found.name
    assert split_list(f"mini60-6x10,{name},mini60-3x20") == ["mini60-6x10", name, "mini60-3x20"]


def test_a_template_that_changes_nothing_disappears(fruit):
    assert find(f"folder:{fruit}-3x1+template={TEMPLATE}").name == "folder:fruit-3x1"


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("template=a photo", r"'a photo': one \{\} is wanted"),
        ("template=", "a text in one line is wanted"),
        ("template={} and {}", r"one \{\} is wanted"),
        ("template={} {x}", r"no braces but \{\}"),
        ("template={}+template={}", "given twice"),
        ("templte={}", r"unknown option \+templte"),
    ],
)
def test_an_unsound_template_is_refused(fruit, option, complaint):
    with pytest.raises(BenchError, match=complaint):
        find(f"folder:{fruit}-3x1+{option}")


def test_dataset_toml_gives_templates_names_origin_and_licence(fruit):
    before = image_folder(fruit).info
    (fruit / "dataset.toml").write_text('origin = "the market"\nlicence = "CC0"\n')
    stated = image_folder(fruit).info
    assert stated.origin == "the market; licence: CC0" and stated.version == before.version  # no word has changed
    (fruit / "dataset.toml").write_text('templates = ["a {}.", "{}"]\n[class_names]\nn01 = "Golden Delicious"\n')
    info = image_folder(fruit).info
    assert info.templates == ("a {}.", "{}") and info.class_names == ("Golden Delicious", "pear", "plum")
    assert info.version.startswith(f"{before.version}.") and info.origin == before.origin
    assert find(f"folder:{fruit}-3x1").version == f"1.{info.version}"
    assert find(f"folder:{fruit}-3x1+template=one {{}}").scenario(0).templates[0] == ("one {}",)  # the name goes before the file


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("templates =", "not TOML that can be read"),
        ('template = ["{}"]', "unknown key 'template'; did you mean templates"),
        ('templates = ["a photo"]', r"one \{\} is wanted"),
        ("templates = []", "a list of texts is wanted"),
        ("templates = [3]", "a text in one line is wanted"),
        ('templates = ["{}", "{}"]', "stands there twice"),
        ('[class_names]\npeer = "pear"', "unknown class folder 'peer'; did you mean pear"),
        ('[class_names]\npear = ""', "the name is empty"),
        ('[class_names]\npear = "Plum"', "make the same prompt"),
        ('class_names = ["a", "b", "c"]', "a table is wanted"),
        ("origin = 3", "origin: a text in one line"),
    ],
)
def test_a_dataset_toml_that_cannot_be_meant_is_refused_in_one_line(fruit, text, complaint):
    (fruit / "dataset.toml").write_text(text)
    with pytest.raises(BenchError, match=complaint) as refused:
        image_folder(fruit)
    assert "\n" not in str(refused.value) and str(fruit) in str(refused.value)


def test_a_folder_is_a_data_set_wherever_one_is_named(fruit):
    dataset = registry.load("dataset", f"folder:{fruit}")
    assert dataset.info.name == "folder:fruit" and registry.load("dataset", f"folder:{fruit}") is dataset
    assert registry.load("dataset", f'folder:{fruit}+template="a {{}}"').info.templates == ("a {}",)
    assert find_protocol_or_dataset(f"folder:{fruit}") is dataset
    assert isinstance(find_protocol_or_dataset(f"folder:{fruit}-3x1"), Protocol)
    with pytest.raises(BenchError, match="no option of a data set"):
        registry.load("dataset", f"folder:{fruit}+budgeted")
    with pytest.raises(BenchError, match="unknown data set 'fruit'"):
        registry.load("dataset", "fruit")


def test_a_protocol_of_somebodys_may_learn_folders_beside_other_data_sets(fruit, tmp_path):
    name = f"folder:{fruit}"
    mixed = Protocol("mixed", "1", "class-incremental", "", lambda seed: [
        TaskPlan("fruit", name, (0, 1, 2)), TaskPlan("letters", "mini-letters", (0, 1)),
    ], fixed_order=True)  # fmt: skip
    assert mixed.content == "own" and mixed.scenario(0).class_names[:3] == CLASSES
    folders = Folders(tmp_path / "data", tmp_path / "cache")
    images = identity.recorded(mixed, 0, folders, 1, 1, False)
    assert set(images) == {f"folder:fruit@{image_folder(fruit).info.version}", "mini-letters"}  # and not where it lies
    assert images == identity.present(mixed, 0, folders, 1, 1)
    (fruit / "dataset.toml").write_text('templates = ["a {}."]')
    assert set(identity.recorded(mixed, 0, folders, 1, 1, False)) != set(images)  # other words are another run
    tasks = one_task_per_dataset([name, "mini-letters"])(0)
    assert [(task.name, task.dataset) for task in tasks] == [("folder:fruit", name), ("mini-letters", "mini-letters")]
