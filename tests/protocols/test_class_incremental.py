"""Names that need no entry: any data set cut into tasks, and folders of images."""

import numpy as np
import pytest
from PIL import Image

from bench.errors import BenchError
from bench.streams.names import find
from bench.system import registry
from protocols.class_incremental import Shape, split


def test_every_registered_data_set_has_class_incremental_streams():
    for name in registry.names("dataset"):
        classes = len(registry.load("dataset", name).info.class_names)
        protocol = find(f"{name}-b{classes - 2}-2x1")
        plans = protocol.tasks(0)
        assert [len(plan.labels) for plan in plans] == [classes - 2, 1, 1]
        assert sorted(label for plan in plans for label in plan.labels) == list(range(classes))
        assert {plan.dataset for plan in plans} == {name}
        assert protocol.exemplars == "none"


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("tinyimagenet-10x20", "tiny-imagenet"), ("imagenet1000-b500-10x50", "imagenet"), ("cars196-14x14", "stanford-cars"),
        ("vtab-10x5", "vtab50"),
    ],
)  # fmt: skip
def test_data_sets_answer_to_the_names_that_papers_use(name, dataset):
    assert find(name).tasks(0)[0].dataset == dataset
    assert find(name).name == name


def test_the_domains_of_vtab_stay_together():
    assert [plan.labels for plan in find("vtab50-10x5").tasks(3)] == [tuple(range(k, k + 5)) for k in range(0, 50, 5)]


def test_names_are_taken_apart():
    assert split("a-b-b3-4x5") == ("a-b", Shape(3, 4, 5))
    assert split("imagenet-r-10x20") == ("imagenet-r", Shape(0, 10, 20))
    for other in ("cifar100", "cifar100-10x", "cifar100-0x5", "-10x10", "cifar100-10x10-extra"):
        assert split(other) is None


@pytest.fixture
def pets(tmp_path):
    """pets(classes, images): a folder of that many sub-folders, each with that many images."""

    def make(classes: int = 6, images: int = 3):
        for label in range(classes):
            folder = tmp_path / "pets" / f"kind_{label}"
            folder.mkdir(parents=True)
            for k in range(images):
                Image.fromarray(np.full((9, 7, 3), 20 * label + k, np.uint8)).save(folder / f"{k}.png")
        return tmp_path / "pets"

    return make


def test_a_folder_is_a_stream(pets, monkeypatch):
    path = pets()
    protocol = find(f"folder:{path}-3x2")
    assert protocol.name == "folder:pets-3x2"
    assert len(protocol.scenario(0).class_names) == 6
    assert protocol.scenario(0).class_names[0].startswith("kind ")
    assert [len(plan.labels) for plan in find(f"folder:{path}-b2-2x2").tasks(0)] == [2, 2, 2]
    monkeypatch.chdir(path.parent)
    assert find("folder:pets-3x2").version == protocol.version
    assert find("folder:./pets-3x2+order=natural+budgeted").name == "folder:pets-3x2+order=natural+budgeted"


def test_a_folder_that_has_changed_is_another_version(pets):
    path = pets()
    before = find(f"folder:{path}-3x2").version
    (path / "kind_0" / "0.png").rename(path / "kind_0" / "9.png")
    assert find(f"folder:{path}-3x2").version != before


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("-4x2", "did you mean folder:{path}-3x2? 4x2 makes 8 classes, there are 6"),
        ("-3x1", "did you mean folder:{path}-3x2 or folder:{path}-6x1 or folder:{path}-b3-3x1?"),
        ("", "write folder:PATH-5x4 for five tasks of four classes"),
        ("x-3x2", "no such folder"),
    ],
)
def test_a_folder_that_does_not_fit_is_answered_in_one_line(pets, shape, message):
    path = pets()
    with pytest.raises(BenchError) as caught:
        find(f"folder:{path}{shape}")
    assert message.format(path=path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_without_images_is_named(pets):
    path = pets()
    (path / "kind_9").mkdir()
    with pytest.raises(BenchError, match="kind_9: no image in it"):
        find(f"folder:{path}-7x1")
