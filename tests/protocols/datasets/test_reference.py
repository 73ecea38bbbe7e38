"""Reference data: what each name gives, that it stays the same, and that nothing is taken instead of what was asked for."""

import numpy as np
import pytest

from bench.errors import BenchError
from bench.system import registry
from protocols.datasets.mini_world import downstream
from tests.protocols.datasets.miniatures import write_parquet, write_picture

NAMES = ["conceptual-captions", "folder", "imagenet", "imagenet-classes", "mini", "tiny-imagenet"]
TSV = "Validation_GCC-1.1.0-Validation.tsv"


def reference(name):
    return registry.load("reference", name)


def test_all_names_are_registered():
    assert [name for name in registry.names("reference") if name in NAMES] == NAMES


def test_mini_pairs_are_the_same_whenever_they_are_drawn(folders):
    from protocols.datasets import reference as module

    images = reference("mini").images(folders)
    sentences = reference("mini").sentences(folders)
    assert len(images) == len(sentences) == 1000
    assert images.read(np.array([0]))[0].shape == (32, 32, 3)
    module._drawn.cache_clear()
    assert reference("mini").images(folders).digest == images.digest
    assert reference("mini").sentences(folders) == sentences
    assert len(set(sentences)) > 700


def test_mini_images_are_in_no_downstream_set(folders):
    images = reference("mini").images(folders)
    own = set(images.image_digests(np.arange(len(images))))
    assert len(own) == 1000
    for name in ("shapes", "letters"):
        for split in ("train", "test"):
            source = registry.load("dataset", f"mini-{name}").open_split(split, folders)
            assert source.read(np.array([0]))[0].shape == (32, 32, 3)
            assert not own.intersection(source.image_digests(np.arange(len(source)))), (name, split)
    assert {"shapes", "letters"} <= set(downstream.DATASETS)


@pytest.mark.parametrize("name", ["imagenet", "tiny-imagenet"])
def test_images_are_the_training_images_of_the_data_set(name, folders):
    with pytest.raises(BenchError, match=f"data set {name} is not in") as error:
        reference(name).images(folders)
    assert "\n" not in str(error.value)


def test_imagenet_classes_are_a_thousand_sentences_in_label_order(folders):
    sentences = reference("imagenet-classes").sentences(folders)
    assert len(sentences) == 1000
    assert sentences[:2] == ("tench", "goldfish")


@pytest.mark.parametrize(
    ("name", "part", "instead"),
    [
        ("imagenet", "sentences", "'imagenet-classes'"),
        ("imagenet-classes", "images", "'imagenet'"),
        ("folder", "sentences", "text file"),
    ],
)
def test_what_a_name_does_not_have_is_refused_not_replaced(folders, name, part, instead):
    with pytest.raises(BenchError, match=f"reference data '{name}' has no {part}; .*{instead}"):
        getattr(reference(name), part)(folders)


def test_any_folder_of_images(folders, tmp_path):
    for number in range(5):
        write_picture(tmp_path / "pictures" / f"{number % 2}" / f"{number}.png", number)
    source = reference("folder").images(folders, tmp_path / "pictures")
    assert source.paths.tolist() == ["0/0.png", "0/2.png", "0/4.png", "1/1.png", "1/3.png"]
    (tmp_path / "pictures" / "0" / "2.png").write_bytes(b"\x89PNG")
    with pytest.raises(BenchError, match="reference images: .*0/2.png: not a whole image"):
        source.read(np.arange(5))
    (tmp_path / "none").mkdir()
    with pytest.raises(BenchError, match="reference images: .*none holds no image"):
        reference("folder").images(folders, tmp_path / "none")
    with pytest.raises(BenchError, match="give the path of a folder"):
        reference("folder").images(folders)


def write_captions(folders, content: bytes):
    path = folders.data / "conceptual-captions" / TSV
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_captions_from_googles_list(folders, capsys):
    write_captions(folders, "author : a life\thttp://a/1.jpg\nsea\u2028side at dusk \thttp://b/2.jpg\n".encode())
    assert reference("conceptual-captions").sentences(folders) == ("author : a life", "sea\u2028side at dusk")
    assert "note: 2 captions in" in capsys.readouterr().err


def test_captions_from_the_hubs_file(folders):
    path = folders.data / "conceptual-captions" / "validation-00000-of-00001.parquet"
    write_parquet(path, {"image_url": ["http://a", "http://b"], "caption": ["a dog", " the pier "]})
    assert reference("conceptual-captions").sentences(folders) == ("a dog", "the pier")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BenchError, match=f"reference sentences: {path}: the file is damaged") as error:
        reference("conceptual-captions").sentences(folders)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"no tab here\n", b"a dog\thttp://a\n\thttp://b\n", b"\xff\xfe\t\n"])
def test_a_damaged_list_of_captions_is_named(folders, content):
    path = write_captions(folders, content)
    with pytest.raises(BenchError, match=f"reference sentences: {path}: the file is damaged"):
        reference("conceptual-captions").sentences(folders)


def test_without_captions_one_line_says_where_they_come_from(folders):
    with pytest.raises(BenchError, match="https://ai.google.com/research/ConceptualCaptions") as error:
        reference("conceptual-captions").sentences(folders)
    message = str(error.value)
    assert "\n" not in message and str(folders.data / "conceptual-captions" / TSV) in message


def test_captions_are_fetched_by_one_process_for_all_that_want_them(folders, monkeypatch):
    """The others wait for what is fetched under the same name, and are told when it lies there."""
    asked = []

    def fetch(parts, data, name, key, already_there):
        asked.append((key, already_there()))
        write_captions(folders, b"a dog\thttp://a\n")
        asked.append((key, already_there()))

    monkeypatch.setattr("bench.images.downloads.fetch", fetch)
    assert reference("conceptual-captions").sentences(folders) == ("a dog",)
    assert asked == [("conceptual-captions", False), ("conceptual-captions", True)]


def test_images_of_the_captions_are_those_the_user_fetched(folders):
    with pytest.raises(BenchError, match="reference images 'conceptual-captions' are not in .*name a folder of other images"):
        reference("conceptual-captions").images(folders)
    for number in range(3):
        write_picture(folders.data / "conceptual-captions" / "images" / "00000" / f"{number}.jpg", number)
    assert len(reference("conceptual-captions").images(folders)) == 3
