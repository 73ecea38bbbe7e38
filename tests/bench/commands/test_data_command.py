"""`bench data list | get | check`, and what a run says of data that is missing or damaged."""

import pickle

import numpy as np
import pytest
from click.testing import CliRunner

from bench.commands.main import main

CIFAR = "cifar-100-python"


def write_batch(path, labels, **changed) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = np.repeat(np.array(labels, np.uint8)[:, None], 3072, axis=1)
    path.write_bytes(pickle.dumps({"data": images, "fine_labels": list(labels), **changed}, protocol=2))


@pytest.fixture
def data(tmp_path):
    """A data folder with a small CIFAR-100."""
    for split in ("train", "test"):
        write_batch(tmp_path / "data" / CIFAR / split, range(100))
    return tmp_path / "data"


@pytest.fixture
def call(tmp_path, monkeypatch):
    """call("data", "list") -> (exit code, standard output, standard error)"""
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(main, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoke


def row_of(listing: str, name: str) -> list[str]:
    return next(line.split() for line in listing.splitlines() if line.startswith(f"{name} "))


def test_list_says_what_is_there_what_is_not_and_what_is_half_there(call, data):
    (data / "tiny-imagenet-200" / "train").mkdir(parents=True)
    code, listing, _ = call("data", "list")
    assert code == 0
    assert row_of(listing, "cifar100") == ["cifar100", "100", "50000", "10000", "there", "download", CIFAR]
    assert row_of(listing, "cifar100-cil")[4] == "there"
    assert row_of(listing, "tiny-imagenet")[4:] == ["incomplete", "download", "tiny-imagenet-200"]
    assert row_of(listing, "imagenet")[4:] == ["-", "by", "hand", "imagenet"]
    assert row_of(listing, "mini60")[4:] == ["there", "made", "here", "(cache)"]


def test_get_says_where_it_is_or_what_to_do(call, data):
    assert call("data", "get", "cifar100") == (0, f"cifar100: already in {data / CIFAR}\n", "")
    assert call("data", "get", "mini60")[:2] == (0, "mini60: nothing to get, its images are made when they are first used\n")
    for name, parts in {
        "cifar10": ("cifar-10-batches-py", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "BENCH_OFFLINE"),
        "imagenet": ("https://image-net.org", str(data / "imagenet"), "train, val"),
    }.items():
        code, _, message = call("data", "get", name)
        assert code == 2 and message.count("\n") == 1
        assert all(part in message for part in (name, *parts)), message


def test_an_unknown_name_is_refused_with_the_close_ones(call):
    code, _, message = call("data", "get", "cifra100")
    close = "cifar100, cifar10, cifar100-cil"
    assert (code, message) == (
        2, f"bench: unknown data set 'cifra100'; did you mean {close}? (bench list datasets names them all)\n",
    )  # fmt: skip


def test_check_of_what_is_not_there_says_so_and_downloads_nothing(call, data, monkeypatch):
    monkeypatch.delenv("BENCH_OFFLINE")
    code, _, message = call("data", "check", "cifar10")
    assert code == 2 and message.startswith(f"bench: data set cifar10 is not in {data / 'cifar-10-batches-py'}; download https")


def test_check_reports_counts_and_digests_that_differ(call, data):
    code, report, _ = call("data", "check", "cifar100")
    assert code == 1
    for line in (
        "WRONG  train: its digest differs from the official one (md5 16019d7e3df5f24257cddd939b257f8d)",
        "train: 100 images, 1 to 1 of each of 100 classes",
        "WRONG  train: 100 images, the official number is 50000",
        "WRONG  test: 100 images, the official number is 10000",
    ):
        assert line in report.splitlines()
    assert report.splitlines()[-1] == "cifar100: not as it should be, see the lines above"


def test_check_of_a_data_set_made_here_passes(call, cache, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    code, report, _ = call("data", "check", "mini-digits")
    assert code == 0
    assert "mini-digits: as it should be" in report and "every image is whole" in report


def write_isic(folder, labels) -> None:
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        (folder / f"{split}_labels.pkl").write_bytes(pickle.dumps(np.array(labels)))
        (folder / f"{split}_images.pkl").write_bytes(pickle.dumps(np.zeros((len(labels), 4, 4, 3))))


def test_check_names_classes_without_images(call, tmp_path):
    write_isic(tmp_path / "data" / "isic", [0, 1, 3, 3])
    code, report, _ = call("data", "check", "isic")
    assert code == 1
    classes = "actinic keratosis or intraepithelial carcinoma, dermatofibroma, vascular skin lesion"
    assert f"WRONG  train: no image of {classes}" in report


def test_check_names_every_damaged_image_unless_it_is_quick(call, tmp_path):
    from PIL import Image

    from protocols.datasets.eurosat import CLASSES

    folder = tmp_path / "data" / "eurosat" / "2750"
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (16, 16), (label, number, 0)).save(folder / name / f"{name}_{number}.jpg")
    for name in ("River", "Forest"):
        path = folder / name / f"{name}_1.jpg"
        path.write_bytes(path.read_bytes()[:-40])
    code, report, _ = call("data", "check", "eurosat")
    assert code == 1
    assert sum("not a whole image" in line for line in report.splitlines()) == 2
    assert f"{folder / 'River' / 'River_1.jpg'}: not a whole image" in report
    assert "not a whole image" not in call("data", "check", "eurosat", "--quick")[1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "the file is damaged"),
        (lambda path: write_batch(path, [100]), "label 100 of image 0 is out of range 0..99"),
        (lambda path: path.unlink(), "missing: train"),
    ],
)
def test_check_and_get_name_what_is_damaged(call, data, damage, message):
    damage(data / CIFAR / "train")
    code, report, error = call("data", "check", "cifar100")
    assert code == (2 if "missing" in message else 1)
    assert message in report + error


# -- a run ------------------------------------------------------------------------------------------------------


def test_a_run_without_data_is_one_line_with_exit_code_2(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    found = bench("run", "--protocol", "cifar100-10x10", "--methods", "zero-shot", "--data-dir", tmp_path / "data")
    assert found.returncode == 2 and "Traceback" not in found.stderr
    assert found.stderr.splitlines()[-1] == (
        f"bench: data set cifar100 is not in {tmp_path / 'data' / CIFAR}; the download failed (BENCH_OFFLINE is set); download "
        f"https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz to {tmp_path / 'data' / 'cifar-100-python.tar.gz'} (it is "
        "unpacked by itself), then repeat the command"
    )


def test_a_run_on_a_miniature_copy_works_and_notes_its_size(bench, data):
    found = bench("run", "--protocol", "cifar100-10x10", "--methods", "zero-shot", "--data-dir", data)
    assert found.returncode == 0, found.stderr
    assert "note: cifar100: 100 train images" in found.stderr
    assert "zero-shot" in found.stdout
