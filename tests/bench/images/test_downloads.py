"""Downloads that are whole or not there, and archives that stay in their folder. The internet is a server on this machine."""

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.images import downloads, layouts
from bench.images.dataset import DatasetInfo, Folders
from bench.images.downloads import DownloadFailed, HubFiles, RemoteFile, fetch, unpack, verify


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tar_of(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Server:
    """Files by path; how often each was asked for; paths of which only the first half is sent."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut_short: set[str] = set()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.split("?")[0]
                owner.asked.append(path)
                if path not in owner.files:
                    self.send_error(404)
                    return
                content = owner.files[path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if path in owner.cut_short else content)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv(downloads.OFFLINE, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    running = Server()
    yield running
    running.server.shutdown()
    running.server.server_close()


def everything(folder: Path) -> dict[str, str]:
    """The text of each file, locks left out."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


# -- whole or not at all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tar.gz", tar_of({"set/x/1.txt": b"one", "set/2.txt": b"two"})),
        ("a.tar", tar_of({"set/x/1.txt": b"one", "set/2.txt": b"two"}, "w")),
        ("a.tgz", tar_of({"set/x/1.txt": b"one", "set/2.txt": b"two"})),
        ("a.zip", zip_of({"set/x/1.txt": b"one", "set/2.txt": b"two"})),
    ],
)
def test_an_archive_is_fetched_checked_and_unpacked(server, tmp_path, name, content):
    server.files[f"/{name}"] = content
    fetch([RemoteFile((f"{server.root}/{name}",), digest_of(content))], tmp_path, "set", "set")
    assert everything(tmp_path) == {"set/x/1.txt": "one", "set/2.txt": "two"}


def test_files_go_where_they_are_wanted(server, tmp_path):
    server.files |= {"/images.zip": zip_of({"jpg/1.txt": b"one"}), "/labels.mat": b"labels"}
    parts = [
        RemoteFile((f"{server.root}/images.zip?download=1",), into="flowers", renamed=(("flowers/jpg", "flowers/images"),)),
        RemoteFile((f"{server.root}/labels.mat",), into="flowers", name="new.mat"),
    ]
    fetch(parts, tmp_path, "flowers", "flowers")
    assert everything(tmp_path) == {"flowers/images/1.txt": "one", "flowers/new.mat": "labels"}


def test_an_archive_in_an_archive_is_unpacked_too(server, tmp_path):
    inner = tar_of({"objects/1.txt": b"one"})
    server.files["/outer.zip"] = zip_of({"outer/objects.tar.gz": inner, "outer/read.me": b"hello"})
    fetch([RemoteFile((f"{server.root}/outer.zip",), into="set", inner=("outer/objects.tar.gz",))], tmp_path, "set", "set")
    assert everything(tmp_path) == {"set/outer/objects/1.txt": "one", "set/outer/read.me": "hello"}


def test_what_is_there_already_is_kept(server, tmp_path):
    server.files |= {"/tiles.zip": zip_of({"tiles/1.txt": b"new"}), "/split.json": b"{}"}
    (tmp_path / "set" / "tiles").mkdir(parents=True)
    (tmp_path / "set" / "tiles" / "0.txt").write_text("own")
    parts = [
        RemoteFile((f"{server.root}/tiles.zip",), into="set", gives="set/tiles"),
        RemoteFile((f"{server.root}/split.json",), into="set"),
    ]
    fetch(parts, tmp_path, "set", "set")
    assert everything(tmp_path) == {"set/tiles/0.txt": "own", "set/split.json": "{}"}
    assert server.asked == ["/split.json"]


@pytest.mark.parametrize("digest", [True, False])
def test_half_a_file_is_not_taken_for_the_whole(server, tmp_path, digest):
    content = tar_of({"set/1.txt": b"one" * 1000}, "w")
    server.files["/a.tar"] = content
    server.cut_short.add("/a.tar")
    with pytest.raises(DownloadFailed, match="a.tar: .*(bytes|IncompleteRead)"):
        fetch([RemoteFile((f"{server.root}/a.tar",), digest_of(content) if digest else "")], tmp_path, "set", "set")
    assert everything(tmp_path) == {}


def test_a_file_with_another_digest_is_refused(server, tmp_path):
    server.files["/a.tar"] = tar_of({"set/1.txt": b"other"}, "w")
    with pytest.raises(DownloadFailed, match="not the file that was expected"):
        fetch([RemoteFile((f"{server.root}/a.tar",), digest_of(b"what was expected"))], tmp_path, "set", "set")
    assert everything(tmp_path) == {}


def test_the_second_place_is_asked_when_the_first_fails(server, tmp_path):
    content = tar_of({"set/1.txt": b"one"}, "w")
    server.files |= {"/broken/a.tar": content, "/good/a.tar": content}
    server.cut_short.add("/broken/a.tar")
    urls = tuple(f"{server.root}/{place}/a.tar" for place in ("gone", "broken", "good"))
    fetch([RemoteFile(urls, digest_of(content))], tmp_path, "set", "set")
    assert server.asked == ["/gone/a.tar", "/broken/a.tar", "/good/a.tar"]
    assert everything(tmp_path) == {"set/1.txt": "one"}


def test_if_one_of_two_files_fails_none_is_there(server, tmp_path):
    server.files["/a.txt"] = b"one"
    parts = [RemoteFile((f"{server.root}/{name}",), into="set") for name in ("a.txt", "b.txt")]
    with pytest.raises(DownloadFailed, match="b.txt: .*Not Found"):
        fetch(parts, tmp_path, "set", "set")
    assert everything(tmp_path) == {}


def test_a_page_instead_of_json_is_refused(server, tmp_path):
    server.files["/split.json"] = b"<html>please log in</html>"
    with pytest.raises(DownloadFailed, match="not JSON"):
        fetch([RemoteFile((f"{server.root}/split.json",), into="set")], tmp_path, "set", "set")
    assert everything(tmp_path) == {}


def test_what_a_killed_download_left_is_removed(server, tmp_path):
    abandoned = tmp_path / ".set-abc123.partial" / "set"
    abandoned.mkdir(parents=True)
    (abandoned / "half.txt").write_text("half")
    server.files["/a.txt"] = b"one"
    fetch([RemoteFile((f"{server.root}/a.txt",), into="set")], tmp_path, "set", "set")
    assert everything(tmp_path) == {"set/a.txt": "one"}


def test_an_archive_that_somebody_has_placed_is_used_offline(tmp_path, monkeypatch):
    monkeypatch.setenv(downloads.OFFLINE, "1")
    content = tar_of({"set/1.txt": b"one"})
    part = RemoteFile(("http://nowhere.invalid/a.tar.gz",), digest_of(content))
    with pytest.raises(DownloadFailed, match="BENCH_OFFLINE is set"):
        fetch([part], tmp_path / "data", "set", "set")
    assert not (tmp_path / "data").exists()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.tar.gz").write_bytes(content[:-8])
    with pytest.raises(DownloadFailed, match="a.tar.gz is not the file that was expected"):
        fetch([part], tmp_path / "data", "set", "set")
    (tmp_path / "data" / "a.tar.gz").write_bytes(content)
    fetch([part], tmp_path / "data", "set", "set")
    assert (tmp_path / "data" / "set" / "1.txt").read_text() == "one"
    assert (tmp_path / "data" / "a.tar.gz").exists(), "what somebody has placed is theirs"


def test_what_is_there_in_part_needs_no_internet_for_the_rest_that_is_placed(tmp_path, monkeypatch):
    monkeypatch.setenv(downloads.OFFLINE, "1")
    (tmp_path / "set" / "tiles").mkdir(parents=True)
    (tmp_path / "split.json").write_text("{}")
    urls = [(f"http://nowhere.invalid/{name}",) for name in ("tiles.zip", "split.json")]
    fetch([RemoteFile(urls[0], into="set", gives="set/tiles"), RemoteFile(urls[1], into="set")], tmp_path, "set", "set")
    assert (tmp_path / "set" / "split.json").read_text() == "{}"


def test_who_waited_finds_it_there(server, tmp_path):
    fetch([RemoteFile((f"{server.root}/a.txt",))], tmp_path, "set", "set", already_there=lambda: True)
    assert server.asked == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadFailed, match="cannot be written"):
        fetch([RemoteFile(("http://nowhere.invalid/a.txt",))], tmp_path / "file", "set", "set")


def test_hub_files_are_put_flat(tmp_path, monkeypatch):
    import huggingface_hub

    def snapshot_download(repository, repo_type, revision, allow_patterns, local_dir):
        assert (repository, repo_type, revision, allow_patterns) == ("owner/set", "dataset", "main", ["data/*.parquet"])
        for name in ("data/train-00000-of-00001.parquet", ".cache/huggingface/notes"):
            (Path(local_dir) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(local_dir) / name).write_text("x")

    monkeypatch.delenv(downloads.OFFLINE, raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    fetch([HubFiles("owner/set", ("data/*.parquet",), into="set")], tmp_path, "set", "set")
    assert everything(tmp_path) == {"set/train-00000-of-00001.parquet": "x"}


def test_a_hub_that_is_out_of_reach_is_one_line(tmp_path, monkeypatch):
    import huggingface_hub

    def snapshot_download(*arguments, **options):
        raise ConnectionError("no route\nlong explanation")

    monkeypatch.delenv(downloads.OFFLINE, raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(DownloadFailed, match="^huggingface.co/datasets/owner/set: no route$"):
        fetch([HubFiles("owner/set", ("*",), into="set")], tmp_path, "set", "set")
    assert everything(tmp_path) == {}


def test_verify_knows_md5_and_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    verify(tmp_path / "a", "md5:900150983cd24fb0d6963f7d28e17f72")
    verify(tmp_path / "a", digest_of(b"abc"))
    with pytest.raises(DownloadFailed):
        verify(tmp_path / "a", "md5:900150983cd24fb0d6963f7d28e17f73")


# -- archives ---------------------------------------------------------------------------------------------------


def write_tar_with(path: Path, **facts) -> None:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("member")
        for name, value in facts.items():
            setattr(info, name, value)
        archive.addfile(info)


@pytest.mark.parametrize(
    "facts",
    [
        {"name": "../outside.txt"},
        {"name": "x/../../outside.txt"},
        {"name": "link", "type": tarfile.SYMTYPE, "linkname": "../.."},
        {"name": "link", "type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"name": "link", "type": tarfile.LNKTYPE, "linkname": "../secret"},
        {"name": "device", "type": tarfile.CHRTYPE},
    ],
)
def test_a_tar_that_leads_outside_is_refused(tmp_path, facts):
    write_tar_with(tmp_path / "a.tar", **facts)
    (tmp_path / "target").mkdir()
    with pytest.raises(BenchError, match="a.tar: refused, it is not safe to unpack"):
        unpack(tmp_path / "a.tar", tmp_path / "target")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "target"]


def test_an_absolute_path_in_a_tar_stays_inside(tmp_path):
    write_tar_with(tmp_path / "a.tar", name="/outside.txt")
    unpack(tmp_path / "a.tar", tmp_path / "target")
    assert (tmp_path / "target" / "outside.txt").exists() and not Path("/outside.txt").exists()


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "x/../../outside.txt", "..\\outside.txt"])
def test_a_zip_that_leads_outside_is_refused(tmp_path, name):
    (tmp_path / "a.zip").write_bytes(zip_of({name: b"x"}))
    (tmp_path / "target").mkdir()
    with pytest.raises(BenchError, match="leads outside"):
        unpack(tmp_path / "a.zip", tmp_path / "target")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "target"]


def test_a_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(BenchError, match="leads outside"):
        unpack(tmp_path / "a.zip", tmp_path / "target")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in ("a.tar.gz", "a.zip") for damage in ("truncated", "changed", "something else")),
        *(("a.tar", damage) for damage in ("truncated", "something else")),  # it holds no checksum of what is in it
    ],
)
def test_a_damaged_archive_is_named(tmp_path, name, damage):
    import numpy as np

    content = np.random.default_rng(0).bytes(50_000)
    members = {"set/1.bin": content, "set/2.bin": content}
    good = {"a.tar": lambda: tar_of(members, "w"), "a.tar.gz": lambda: tar_of(members), "a.zip": lambda: zip_of(members)}[name]()
    half = len(good) // 2
    bad = {"truncated": good[:half], "changed": good[:half] + b"????" + good[half + 4 :], "something else": b"<html>" * 99}
    (tmp_path / name).write_bytes(bad[damage])
    with pytest.raises(DownloadFailed, match=f"the archive .*{name} is damaged"):
        unpack(tmp_path / name, tmp_path / "target")


# -- a data set -------------------------------------------------------------------------------------------------


def test_a_data_set_downloads_itself_when_it_is_opened(server, tmp_path, capsys):
    from bench.images.sources import ImageSource

    def read(copy, split) -> ImageSource:
        values = [int(line) for line in (copy.folder / f"{split}.txt").read_text().split()]
        import numpy as np

        return ImageSource.from_arrays(np.zeros((len(values), 2, 2, 3), np.uint8), copy.labels(values, copy.folder))

    content = tar_of({"numbers/train.txt": b"0 1 1", "numbers/test.txt": b"0 1"})
    server.files["/numbers.tar.gz"] = content
    info = DatasetInfo("numbers", "1", ("zero", "one"), ("a {}.",), "numbers", "here", 3, 2)
    download = (RemoteFile((f"{server.root}/numbers.tar.gz",), digest_of(content)),)
    layout = layouts.Layout("numbers", ("train.txt", "test.txt"), read, download=download)
    dataset = layouts.dataset_on_disk(info, layout)
    folders = Folders(tmp_path / "data", tmp_path / "cache")

    server.cut_short.add("/numbers.tar.gz")
    with pytest.raises(BenchError, match=r"data set numbers is not in .*numbers; the download failed .* download http://127"):
        dataset.open_split("train", folders)
    server.cut_short.clear()
    assert dataset.open_split("train", folders).labels.tolist() == [0, 1, 1]
    assert dataset.open_split("test", folders).labels.tolist() == [0, 1]
    assert server.asked == ["/numbers.tar.gz"] * 2
    assert "numbers: downloading numbers.tar.gz" in capsys.readouterr().err
