"""A finished run, or half of one, is only taken for what it was made from: code of the method, images, classes, prompts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bench.commands.main import main
from bench.images.dataset import Folders
from bench.runs import checkpoint, reuse
from bench.streams import identity, sources
from bench.streams import names as protocol_names
from tests.protocols.datasets.miniatures import write_picture

COLOURS = {"apple": (200, 30, 30), "fig": (90, 30, 120), "pear": (120, 190, 60)}


def write_folder(root: Path, classes=("apple", "fig"), swapped: bool = False, images: int = 4) -> None:
    """Flat noisy pictures; swapped: those of each class lie under the name of the next one."""
    for place, name in enumerate(classes):
        shown = classes[(place + swapped) % len(classes)]
        for split in ("train", "test"):
            for number in range(images):
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = np.random.default_rng((place, number, split == "test")).normal(0, 20, (32, 32, 3))
                Image.fromarray(np.clip(np.array(COLOURS[shown]) + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def run(tmp_path, cache, monkeypatch):
    """run(protocol, ...): `bench run` of simplecil in this process, with an empty data folder."""
    monkeypatch.chdir(tmp_path)

    def call(protocol: str, *more: str, methods: str = "simplecil", data: str = "data"):
        arguments = ["run", "--protocol", protocol, "--methods", methods, "--out", "r", "--cache-dir", str(cache)]
        return CliRunner().invoke(main, [*arguments, "--data-dir", data, *more], catch_exceptions=False)

    return call


def ids(result) -> list[str]:
    return re.findall(r"\b[0-9a-f]{16}\b", result.stdout)


# -- images of a folder -------------------------------------------------------------------------------------------


def test_other_images_in_a_folder_of_the_same_name_are_another_run(run, tmp_path):
    write_folder(tmp_path / "a" / "fruit")
    write_folder(tmp_path / "b" / "fruit", swapped=True)
    first, second = (run(f"folder:{place}/fruit-2x1") for place in "ab")
    assert " new" in second.stdout and ids(first) != ids(second)
    both = run("folder:a/fruit-2x1,folder:b/fruit-2x1")
    assert "2 runs, 0 to do" in both.stdout and ids(both) == ids(first) + ids(second)
    again = run("folder:a/fruit-2x1")
    assert "nothing to do" in again.stdout and ids(again) == ids(first)


def replaced(root: Path) -> None:
    shutil.copy(root / "train" / "fig" / "0.png", root / "train" / "apple" / "0.png")


def edited_with_its_old_size_and_date(root: Path) -> None:
    path = root / "train" / "apple" / "0.png"
    facts, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1  # of the last checksum, so that the picture stays readable
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def moved_between_classes(root: Path) -> None:
    (root / "train" / "fig" / "0.png").rename(root / "train" / "apple" / "0.png")
    shutil.copy(root / "train" / "fig" / "1.png", root / "train" / "fig" / "0.png")


def turned(root: Path) -> None:
    path = root / "test" / "fig" / "1.png"
    with Image.open(path) as picture:
        smaller = picture.resize((16, 16))
    smaller.save(path)


@pytest.mark.parametrize("change", [replaced, edited_with_its_old_size_and_date, moved_between_classes, turned])
def test_images_that_were_changed_in_place_are_another_run(run, tmp_path, change):
    write_folder(tmp_path / "fruit")
    first = run("folder:fruit-2x1")
    change(tmp_path / "fruit")
    second = run("folder:fruit-2x1")
    assert " new" in second.stdout and ids(first) != ids(second)


def test_where_a_folder_lies_and_images_that_a_limit_leaves_out_do_not_matter(run, tmp_path):
    write_folder(tmp_path / "fruit", images=6)
    first = run("folder:fruit-2x1", "--limit-train", "2", "--limit-test", "2")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "fruit").rename(tmp_path / "elsewhere" / "fruit")
    (tmp_path / "elsewhere" / "fruit" / "train" / "apple" / "5.png").write_bytes(
        (tmp_path / "elsewhere" / "fruit" / "train" / "apple" / "4.png").read_bytes()
    )
    moved = run(f"folder:{tmp_path}/elsewhere/fruit-2x1", "--limit-train", "2", "--limit-test", "2")
    assert "nothing to do" in moved.stdout and ids(moved) == ids(first)


# -- images of a data set with a name -----------------------------------------------------------------------------


def write_eurosat(data: Path, shift: int = 0) -> None:
    names = "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake".split()
    for label, name in enumerate(names):
        for number in range(25):
            write_picture(data / "eurosat" / "2750" / name / f"{name}_{number}.jpg", (label + shift * number) % 10, number)


def test_another_copy_of_a_named_data_set_is_said_and_its_number_not_shown(run, tmp_path):
    write_eurosat(tmp_path / "A")
    write_eurosat(tmp_path / "B", shift=1)
    first = run("eurosat-5x2", data="A")
    other = run("eurosat-5x2", data="B")
    assert "finished, on other images" in other.stdout and "Last" not in other.stdout and other.exit_code == 1
    assert "--rerun-changed runs it again, another --out keeps both" in other.stderr
    assert "nothing to do" not in other.stdout
    anew = run("eurosat-5x2", "--rerun-changed", data="B")
    assert "runs again: finished, on other images" in anew.stdout and anew.exit_code == 0
    assert anew.stdout.split("simplecil")[-1] != first.stdout.split("simplecil")[-1]
    assert "nothing to do" in run("eurosat-5x2", data="B").stdout


def test_a_copy_that_is_not_here_leaves_finished_runs_as_they_are(run, tmp_path):
    write_eurosat(tmp_path / "A")
    run("eurosat-5x2", data="A")
    elsewhere = run("eurosat-5x2", data="nothing")
    assert "nothing to do" in elsewhere.stdout and elsewhere.exit_code == 0
    assert "1 finished run on eurosat-5x2 was not compared with the images, which are not here" in elsewhere.stderr


def test_a_manifest_of_an_earlier_version_is_compared_by_its_one_digest(run, tmp_path):
    write_eurosat(tmp_path / "A")
    write_eurosat(tmp_path / "B", shift=1)
    run("eurosat-5x2", data="A")
    [path] = (tmp_path / "r").rglob("manifest.json")
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in manifest.items() if k not in ("images", "source", "content", "protocol_given")}))
    assert "nothing to do" in run("eurosat-5x2", data="A").stdout
    assert "finished, on other images" in run("eurosat-5x2", data="B").stdout


def test_digests_of_files_are_kept_until_one_moves(tmp_path, monkeypatch):
    write_eurosat(tmp_path / "data")
    folders, protocol = Folders(tmp_path / "data", tmp_path / "cache"), protocol_names.find("eurosat-5x2")
    first = identity.present(protocol, 0, folders, None, None)
    opened = []
    images = sources.images
    monkeypatch.setattr(sources, "images", lambda *asked: opened.append(asked) or images(*asked))
    assert identity.present(protocol, 0, folders, None, None) == first and not opened
    os.utime(tmp_path / "data" / "eurosat" / "2750" / "Forest" / "Forest_0.jpg", (1, 1))
    assert identity.present(protocol, 0, folders, None, None) == first and opened


def test_doctor_names_runs_whose_images_are_no_longer_there(run, tmp_path, cache):
    write_folder(tmp_path / "fruit")
    write_folder(tmp_path / "gone")
    for name in ("fruit", "gone"):
        run(f"folder:{name}-2x1")

    def said() -> str:
        where = ["--data-dir", "data", "--cache-dir", str(cache)]
        return CliRunner().invoke(main, ["doctor", "r", *where], catch_exceptions=False).output

    assert "2 finished runs: their images are there as they were" in said()
    replaced(tmp_path / "fruit")
    shutil.rmtree(tmp_path / "gone")
    lines = [line for line in said().splitlines() if "no longer there" in line]
    assert len(lines) == 2
    assert any("folder:fruit" in line and "are others now" in line and "folder:fruit-2x1/simplecil/" in line for line in lines)
    assert any("there is no such folder" in line and "folder:gone-2x1/simplecil/" in line for line in lines)


# -- classes, prompts, reference data, versions ------------------------------------------------------------------


def tampered(tmp_path: Path, change) -> None:
    [path] = (tmp_path / "r").rglob("manifest.json")
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


SHORT = ("--limit-train", "2", "--limit-test", "1")


def test_other_class_names_under_an_unchanged_version_are_seen(run, tmp_path):
    run("mini60-6x10", *SHORT)
    tampered(tmp_path, lambda manifest: manifest["tasks"][2]["classes"].reverse())
    found = run("mini60-6x10", *SHORT)
    assert "finished, on other classes or prompts" in found.stdout and "Last" not in found.stdout and found.exit_code == 1


def test_other_templates_under_an_unchanged_version_are_seen(run, tmp_path):
    run("mini60-6x10", *SHORT)
    tampered(tmp_path, lambda manifest: manifest.update(templates=["a drawing of a {}."]))
    assert "finished, on other classes or prompts" in run("mini60-6x10", *SHORT).stdout


def test_other_versions_of_libraries_are_said_once_and_nothing_is_run_again(run, tmp_path):
    run("mini60-6x10", *SHORT)
    tampered(tmp_path, lambda manifest: manifest["environment"].update(torch="1.13.0"))
    found = run("mini60-6x10", *SHORT)
    assert "nothing to do" in found.stdout and found.exit_code == 0
    assert found.stderr.count("made with torch 1.13.0, now ") == 1


def test_a_manifest_holds_what_the_run_was_made_from(run, tmp_path):
    run("mini60-6x10", *SHORT)
    [path] = (tmp_path / "r").rglob("manifest.json")
    manifest = json.loads(path.read_text())
    assert set(manifest["images"]) == {"mini60"} and set(manifest["images"]["mini60"]) == {"train", "test"}
    assert manifest["source"]["target"] == "methods.closed_form.simplecil:SimpleCIL"
    assert "methods.closed_form.simplecil" in manifest["source"]["text"]
    assert {"python", "torch", "open_clip_torch", "numpy", "cuda"} <= set(manifest["environment"])
    assert "begun_in" not in manifest and "images" not in manifest["identity"]


@pytest.mark.thorough
def test_reference_data_of_ones_own_that_were_exchanged_are_seen(run, tmp_path):
    write_folder(tmp_path / "others", classes=("pear", "fig"))
    (tmp_path / "words.txt").write_text("a tree\na house\n")
    own = {"reference_images": tmp_path / "others", "reference_sentences": tmp_path / "words.txt"}
    own |= {"iterations": 1, "batch_size": 4}
    short = [*SHORT, *[f"--set=zscl.{name}={value}" for name, value in own.items()]]
    assert run("mini-mtil-order1", *short, methods="zscl").exit_code == 0
    assert "nothing to do" in run("mini-mtil-order1", *short, methods="zscl").stdout
    (tmp_path / "words.txt").write_text("a tree\na boat\n")
    assert "finished, on other reference data" in run("mini-mtil-order1", *short, methods="zscl").stdout


# -- code ---------------------------------------------------------------------------------------------------------

PLUG_IN = """
    from novel_parts import SIGN
    from bench.learning.method import Method
    from torch.nn.functional import normalize


    class Novel(Method):
        '''Zero-shot CLIP of somebody.'''

        trains = "nothing"

        def learn(self, task):
            wait(task.index)

        def logits(self, batch, classes):
            text = self.backbone.classifier(self.scenario.prompts_of(classes))
            return SIGN * normalize(batch, dim=-1) @ text.T


    def wait(task):
        import os, time

        if task == int(os.environ.get("SLEEP_IN_TASK", -1)):
            time.sleep(600)
    """


@pytest.fixture
def plug_in(tmp_path, cache, forked):
    """A method in a folder of its author's, with an entry point; run(...) is `bench run` of it in a process of its own."""
    place = tmp_path / "plug-in"
    info = place / "novel-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: novel\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bench.methods]\nnovel = novel:Novel\n")
    (place / "novel.py").write_text(textwrap.dedent(PLUG_IN))
    (place / "novel_parts.py").write_text("SIGN = 1\n")
    command = ["run", "--protocol", "mini60-6x10", "--methods", "novel", *SHORT, "--out", "r"]
    path = os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"BENCH_CACHE": str(cache), "PYTHONPATH": path, "COLUMNS": "200"}

    class PlugIn:
        folder = place

        @staticmethod
        def start(*more: str, **variables: str) -> subprocess.Popen:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            fresh = [sys.executable, "-m", "bench", *command, *more]
            return subprocess.Popen(fresh, cwd=tmp_path, env=environment | variables, **pipes)

        @staticmethod
        def run(*more: str) -> tuple[int, str, str]:
            found = forked.run([*command, *more], tmp_path, environment, 300)
            return found.returncode, found.stdout, found.stderr

    return PlugIn


def number(out: str) -> float:
    """The first one of the method's row in the table at the end."""
    return float(re.findall(r"^novel\s+([\d.]+)", out, re.MULTILINE)[-1])


def test_edited_code_is_said_and_run_again_on_request(plug_in):
    _, out, _ = plug_in.run()
    right = number(out)
    (plug_in.folder / "novel.py").write_text(textwrap.dedent(PLUG_IN) + "\n# nothing but a comment\n")
    assert "nothing to do" in (said := plug_in.run())[1] and "other code" not in said[1] + said[2]
    (plug_in.folder / "novel_parts.py").write_text("SIGN = -1\n")
    code, out, err = plug_in.run()
    assert code == 0 and "finished, by other code" in out and number(out) == right
    assert "made by other code of the method (novel_parts); shown as it is, --rerun-changed runs it again" in err
    code, out, err = plug_in.run("--rerun-changed")
    assert code == 0 and "1 to do" in out and number(out) < right / 2
    assert "other code" not in "".join(plug_in.run()[1:])


@pytest.mark.thorough
def test_half_a_run_by_other_code_starts_over_with_a_word(plug_in, tmp_path):
    process = plug_in.start(SLEEP_IN_TASK="2")
    end = time.monotonic() + 120
    while not any(checkpoint.finished_tasks(path) == 2 for path in (tmp_path / "r").rglob("checkpoint.safetensors")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "continues after task 2" in plug_in.run("--dry-run")[1]
    (plug_in.folder / "novel_parts.py").write_text("SIGN = -1\n")
    assert "starts over: begun by other code" in plug_in.run("--dry-run")[1]
    _, out, err = plug_in.run()
    assert "it was begun by other code of the method" in err and "starting over" in err
    mixed = number(out)
    shutil.rmtree(tmp_path / "r")
    assert number(plug_in.run()[1]) == mixed


# -- words --------------------------------------------------------------------------------------------------------


def test_the_status_of_a_run_says_everything_that_differs():
    assert reuse.Reuse("finished").status == "finished" and reuse.Reuse("finished").shown
    by_other_code = reuse.Reuse("finished", differs={"code": "novel"})
    assert by_other_code.status == "finished, by other code" and by_other_code.shown
    both = reuse.Reuse("finished", differs={"code": "novel", "images": "eurosat"})
    assert both.status == "finished, by other code, on other images" and not both.shown
    assert reuse.Reuse("unfinished", 3).status == "continues after task 3"
    assert reuse.Reuse("unfinished", 0).status == reuse.NOTHING.status == "new"
