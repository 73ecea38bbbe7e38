"""Offline means offline; what is missing is said at once, and folders that cannot be had only where they are needed."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
from click.testing import CliRunner

from bench.clip import published
from bench.commands.main import main
from bench.errors import BenchError, printable
from bench.images import folders
from bench.system.offline import nothing_fetched, offline


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Every attempt to reach a host is noted, and fails as without a network; no weights are on this machine."""
    tried = []

    def refuse(*arguments, **options):
        tried.append(arguments)
        raise OSError("the network is not to be used")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.chdir(tmp_path)
    for name in ("BENCH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tried


def run(*arguments: str, cache: Path):
    command = ["run", "--protocol", "mini60-6x10", "--methods", "zero-shot", *arguments, "--out", "r"]
    return CliRunner().invoke(main, [*command, "--cache-dir", str(cache), "--data-dir", "data"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("name", "value", "forbidden"),
    [
        ("BENCH_OFFLINE", "1", True),
        ("HF_HUB_OFFLINE", "yes", True),
        ("BENCH_OFFLINE", "True", True),
        ("BENCH_OFFLINE", "0", False),
        ("HF_HUB_OFFLINE", "off", False),
        ("BENCH_OFFLINE", "", False),
    ],
)
def test_what_counts_as_offline(monkeypatch, name, value, forbidden):
    for one in ("BENCH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(one, raising=False)
    monkeypatch.setenv(name, value)
    assert bool(offline()) is forbidden
    with nothing_fetched("a look"):
        assert offline() == "a look"


@pytest.mark.parametrize("variable", ["BENCH_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize(
    ("backbone", "tag"), [("ViT-B-16", "openai"), ("ViT-B-32", "laion2b_s34b_b79k"), ("RN50", "yfcc15m")]
)
def test_offline_missing_weights_are_one_line_and_no_connection_is_tried(
    no_network, monkeypatch, cache, variable, backbone, tag
):
    monkeypatch.setenv(variable, "1")
    found = run("--backbone", backbone, "--pretrained", tag, cache=cache)
    assert found.exit_code == 2 and not no_network
    lines = found.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith(
        f"bench: the weights {tag} of {backbone} are not on this machine ({variable} is set)"
    )
    assert "download https://" in lines[0] and "--pretrained" in lines[0] and "Traceback" not in found.output


@pytest.mark.thorough
def test_weights_that_cannot_be_reached_are_one_line_without_a_library_s_log(no_network, cache):
    found = run("--backbone", "ViT-B-16", "--pretrained", "openai", cache=cache)
    assert found.exit_code == 2 and no_network
    lines = found.stderr.strip().splitlines()
    assert len(lines) == 1 and "(the download failed: " in lines[0] and "download https://" in lines[0]


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare on this machine")
def test_without_any_network_the_command_ends_at_once(tmp_path, cache):
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a network namespace")
    command = [
        sys.executable,
        "-m",
        "bench",
        "run",
        "--protocol",
        "mini60-6x10",
        "--methods",
        "zero-shot",
        "--backbone",
        "ViT-B-16",
        "--pretrained",
        "openai",
        "--cache-dir",
        str(cache),
    ]
    environment = os.environ | {"BENCH_OFFLINE": "1", "HOME": str(tmp_path)}
    found = subprocess.run(
        ["unshare", "-rn", *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 2 and len(found.stderr.strip().splitlines()) == 1, found.stderr


def test_weights_fetched_by_hand_are_found_where_the_line_says(no_network, monkeypatch):
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    for settings in (
        open_clip.get_pretrained_cfg("ViT-B-16", "openai"),
        open_clip.get_pretrained_cfg("RN50", "yfcc15m"),
        {"url": "https://example.org/weights/some-clip.pt"},
    ):
        source = published.locate(settings)
        assert source.there is None
        source.target.parent.mkdir(parents=True, exist_ok=True)
        source.target.write_bytes(b"weights")
        assert published.get("x", "y", settings) == source.target
    assert not no_network


# -- preflight ----------------------------------------------------------------------------------------------------


def test_preflight_lists_everything_that_is_missing_and_starts_nothing(no_network, tmp_path, cache):
    found = CliRunner().invoke(
        main,
        [
            "run",
            "--protocol",
            "cifar100-10x10,imagenet1000-10x100,mtil-order1",
            "--methods",
            "zero-shot,zscl",
            "--backbone",
            "ViT-B-16",
            "--pretrained",
            "openai",
            "--out",
            "r",
            "--preflight",
            "--data-dir",
            "data",
            "--cache-dir",
            str(cache),
        ],
        catch_exceptions=False,
    )
    assert found.exit_code == 1 and not no_network and not (tmp_path / "r").exists() and not (tmp_path / "data").exists()
    missing = [line for line in found.stdout.splitlines() if "MISSING" in line]
    for what in ("the weights openai of ViT-B-16", "data set cifar100 ", "data set sun397 ", "for zscl: "):
        assert any(what in line for line in missing), what
    assert any("by hand: data set imagenet " in line and "image-net.org" in line for line in missing)
    assert f"{len(missing)} missing; nothing was started" in found.stdout


def test_preflight_of_what_is_all_here_passes(no_network, tmp_path, cache):
    found = run("--preflight", cache=cache)
    assert found.exit_code == 0 and "nothing is missing" in found.stdout and not (tmp_path / "r").exists()


def test_preflight_says_that_the_disk_is_too_small(no_network, tmp_path, cache, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    found = run("--preflight", cache=cache)
    assert found.exit_code == 1 and f"MISSING  {cache}: about " in found.stdout and "wanted" in found.stdout


# -- homes --------------------------------------------------------------------------------------------------------

BELOW_A_FILE = "not-a-folder"


def test_a_folder_that_nobody_asks_for_is_no_error_and_one_that_is_names_the_options():
    for what in ("data", "cache"):
        unknown = folders.Unknown.folder(what)
        assert folders.as_text(unknown) is None and unknown.absolute() is unknown and hash(unknown)
        for use in (
            lambda path=unknown: path / "x",
            lambda path=unknown: os.stat(path),
            lambda path=unknown: list(path.iterdir()),
            lambda path=unknown: path.read_text(),
            lambda path=unknown: path.exists(),
        ):
            with pytest.raises(BenchError, match="--data-dir or BENCH_DATA.*--cache-dir or BENCH_CACHE") as error:
                use()
            assert printable(str(error.value)) == str(error.value)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare on this machine")
@pytest.mark.parametrize(
    ("arguments", "given", "code", "said"),
    [
        (["data", "list"], {}, 2, "name one with --data-dir or BENCH_DATA"),
        pytest.param(
            ["run", "--protocol", "mini60-6x10", "--methods", "zero-shot", "--dry-run"],
            {"BENCH_CACHE": "cache"},
            0,
            "1 to do",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            ["run", "--protocol", "mini60-6x10", "--methods", "zero-shot", "--limit-test", "1"],
            {"BENCH_CACHE": "cache"},
            0,
            "Last",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            ["run", "--protocol", "mini60-6x10", "--methods", "zero-shot", "--jobs", "2"],
            {"BENCH_CACHE": "cache"},
            0,
            "Last",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            ["run", "--protocol", "mini60-6x10", "--methods", "zero-shot"],
            {},
            2,
            "name one with --cache-dir or BENCH_CACHE",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            ["run", "--protocol", "cifar100-10x10", "--methods", "zero-shot"],
            {"BENCH_CACHE": "cache"},
            2,
            "--data-dir or BENCH_DATA",
            marks=pytest.mark.thorough,
        ),
        pytest.param(["doctor"], {}, 2, "--cache-dir or BENCH_CACHE", marks=pytest.mark.thorough),
        (["list", "methods"], {}, 0, "zero-shot"),
    ],
)
def test_a_machine_without_a_home(tmp_path, arguments, given, code, said):
    without_home = ["unshare", "-U", "--map-user=12345", "--map-group=12345", "env", "-u", "HOME"]
    if subprocess.run([*without_home, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a user namespace")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("BENCH_", "XDG_"))} | given
    environment |= {"BENCH_QUIET": "1"}  # a slow machine says meanwhile that it is at work
    command = [*without_home, sys.executable, "-m", "bench", *arguments]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == code and said in found.stdout + found.stderr, found.stderr
    if code:
        assert len(found.stderr.strip().splitlines()) == 1 and found.stderr.startswith("bench: ")


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.thorough)])
def test_a_cache_that_cannot_be_written_is_one_line_and_no_failed_run(tmp_path, monkeypatch, jobs):
    monkeypatch.chdir(tmp_path)
    (tmp_path / BELOW_A_FILE).write_text("")
    found = run("--jobs", jobs, "--limit-test", "1", cache=tmp_path / BELOW_A_FILE / "cache")
    assert found.exit_code == 2 and "--cache-dir or BENCH_CACHE" in found.stderr
    assert len([line for line in found.stderr.splitlines() if line.startswith("bench: ")]) == 1
    assert not list(tmp_path.rglob("failure.json"))


def test_a_results_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r").write_text("")
    found = run("--limit-test", "1", cache=cache)
    assert found.exit_code == 2 and "name another one with --out" in found.stderr


# -- seeds and other numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--seeds", "--order-seeds"])
@pytest.mark.parametrize("seed", [str(2**63), str(10**30), "-1", "1.5", "0x1", ""])
def test_seeds_that_results_could_not_hold_are_refused(tmp_path, monkeypatch, cache, option, seed):
    monkeypatch.chdir(tmp_path)
    found = run(f"{option}={seed}", cache=cache)
    assert found.exit_code == 2 and option in found.stderr and not (tmp_path / "r").exists()
    (tmp_path / "s.toml").write_text(
        f'protocols = ["mini60-6x10"]\nmethods = ["zero-shot"]\n{option.strip("-").replace("-", "_")} = [{2**63}]'
    )
    study = CliRunner().invoke(main, ["run", "--study", "s.toml", "--cache-dir", str(cache)], catch_exceptions=False)
    assert study.exit_code == 2 and f"up to {2**63 - 1}" in study.stderr


def test_the_largest_seeds_are_stored_and_read_again(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    largest = str(2**63 - 1)
    made = run("--seeds", largest, "--order-seeds", largest, "--limit-test", "1", cache=cache)
    assert made.exit_code == 0
    for command in (["table", "r"], ["gate", "r", "--baseline", "b.csv", "--update"], ["gate", "r", "--baseline", "b.csv"]):
        assert CliRunner().invoke(main, command, catch_exceptions=False).exit_code == 0
    assert f"{largest}/{largest}" in (tmp_path / "b.csv").read_text()
    assert "nothing to do" in run("--seeds", largest, "--order-seeds", largest, "--limit-test", "1", cache=cache).stdout


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_numbers_that_are_none_are_refused(tmp_path, monkeypatch, cache, value):
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(
        main,
        [
            "run",
            "--protocol",
            "mini60-6x10",
            "--methods",
            "coop",
            "--set",
            f"coop.learning_rate={value}",
            "--cache-dir",
            str(cache),
        ],
        catch_exceptions=False,
    )
    assert found.exit_code == 2 and "a number is wanted" in found.stderr


# -- files of other editors, folders of other names ---------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_study_file_is_read_as_any_editor_saves_it(tmp_path, monkeypatch, cache, encoding, line_end):
    monkeypatch.chdir(tmp_path)
    text = line_end.join(['protocols = ["mini60-6x10"]', 'methods = ["zero-shot"]', ""])
    (tmp_path / "study.toml").write_bytes(text.encode(encoding))
    found = CliRunner().invoke(
        main, ["run", "--study", "study.toml", "--dry-run", "--cache-dir", str(cache)], catch_exceptions=False
    )
    assert found.exit_code == 0 and "1 to do" in found.stdout, found.stderr


def test_a_study_file_of_another_encoding_is_said_to_be_that(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_bytes("# gr\u00fc\u00dfe".encode("latin-1"))
    found = CliRunner().invoke(main, ["run", "--study", "study.toml"], catch_exceptions=False)
    assert found.exit_code == 2 and "it is not UTF-8 text; save it with that encoding" in found.stderr


@pytest.mark.parametrize(
    ("dataset", "there", "wanted"),
    [
        ("eurosat", "EuroSAT_RGB/Forest", "eurosat/2750"),
        ("eurosat", "EuroSAT/2750", "eurosat"),
        ("eurosat", "x/EuroSAT/2750", "eurosat"),
    ],
)
def test_a_data_set_under_its_archive_s_own_name_is_told_the_name_that_is_wanted(
    tmp_path, monkeypatch, cache, dataset, there, wanted
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    (tmp_path / "data" / there).mkdir(parents=True)
    found = CliRunner().invoke(main, ["data", "check", dataset, "--data-dir", "data"], catch_exceptions=False)
    assert found.exit_code and f"rename it to data/{wanted}" in found.output, found.output


def test_an_order_that_ends_before_the_largest_seed_says_so(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    command = ["run", "--protocol", "cifar100-10x10", "--methods", "zero-shot", "--order-seeds", str(2**32), "--dry-run"]
    found = CliRunner().invoke(main, [*command, "--cache-dir", str(cache)], catch_exceptions=False)
    assert found.exit_code == 2 and "CLAP's class order exists for order seeds below" in found.stderr


def test_a_data_set_that_lies_there_under_another_name_is_not_fetched_again(no_network, tmp_path, cache):
    (tmp_path / "data" / "EuroSAT" / "2750").mkdir(parents=True)
    command = ["run", "--protocol", "eurosat-5x2", "--methods", "zero-shot", "--data-dir", "data", "--cache-dir", str(cache)]
    found = CliRunner().invoke(main, command, catch_exceptions=False)
    assert found.exit_code == 2 and "data/EuroSAT has what it needs" in found.stderr and not no_network


def test_a_folder_of_tiny_imagenet_is_not_taken_for_imagenet(tmp_path):
    from bench.images import layouts
    from bench.system import registry

    for name in ("train", "val"):
        (tmp_path / "somebody-s-pictures" / name).mkdir(parents=True)
    dataset = registry.load("dataset", "imagenet")
    assert "rename" not in str(layouts.not_there(dataset.info, dataset.layouts, tmp_path))
