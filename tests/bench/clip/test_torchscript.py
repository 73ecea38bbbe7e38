"""TorchScript archives: read as torch.jit.load reads them, but without running anything."""

import pickle
import warnings
import zipfile

import pytest
import torch

from bench.clip import backbone as backbones
from bench.clip import torchscript
from bench.errors import BenchError
from tests.bench.clip.tiny_architecture import random_clip, same_numbers, tiny_architecture  # noqa: F401

pytestmark = pytest.mark.usefixtures("tiny_architecture")


class Published(torch.nn.Module):
    """A CLIP as OpenAI publishes it: half-precision weights, and three numbers beside them."""

    def __init__(self, clip):
        super().__init__()
        for name, child in clip.named_children():
            setattr(self, name, child)
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            setattr(self, name, getattr(clip, name))
        for name, number in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
            self.register_buffer(name, torch.tensor(number))

    def forward(self, pixels, tokens):
        return self.visual(pixels), self.token_embedding(tokens) @ self.text_projection * self.logit_scale


@pytest.fixture
def archive(tmp_path):
    """archive(module): a traced and saved module."""

    def make(module, name: str = "ViT-tiny.pt"):
        inputs = (torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.long))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(module, inputs, check_trace=False)
            traced.save(str(tmp_path / name))
        return tmp_path / name

    return make


def replaced(path, entry: str, content: bytes) -> None:
    """The archive with one entry changed."""
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    name = next(name for name in entries if name.split("/", 1)[1] == entry)
    with zipfile.ZipFile(path, "w") as new:
        for other, data in {**entries, name: content}.items():
            new.writestr(other, data)


def test_openai_s_archive_loads_with_quick_gelu_and_without_torch_jit(archive, monkeypatch):
    clip = random_clip("tiny-quickgelu")
    path = archive(Published(clip).eval())

    def forbidden(*_, **__):
        raise AssertionError("the archive's program was loaded")

    monkeypatch.setattr(torch.jit, "load", forbidden)
    found = backbones.load("tiny", str(path), "cpu")
    same_numbers(found, clip)
    assert found.activation == "quick_gelu" and "OpenAI's archive" in found.facts["activation"]
    assert found.digest == backbones.file_digest(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.bfloat16])
def test_all_tensors_are_those_of_torch_s_own_reader(archive, dtype):
    module = Published(random_clip())
    module.register_buffer("rows", torch.arange(12).view(3, 4)[1:, ::2])  # part of a storage, not contiguous
    path = archive(module.eval())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = torch.jit.load(str(path)).to(dtype)
        wanted.save(str(path))
        wanted = torch.jit.load(str(path)).state_dict()
    found = torchscript.read(path)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


class Scripted(torch.nn.Module):
    """Attributes that are no tensors lie in the same tree."""

    numbers: dict[str, int]

    def __init__(self):
        super().__init__()
        self.counts, self.shares, self.switches, self.numbers = [1, 2], [0.5], [True], {"a": 1}
        self.layers = torch.nn.ModuleList([torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)])

    def forward(self, x):
        return x


def test_attributes_that_are_no_tensors_are_passed_over(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.script(Scripted())
        module.save(str(tmp_path / "scripted.pt"))
    found = torchscript.read(tmp_path / "scripted.pt")
    assert found.keys() == module.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in module.state_dict().items())


def test_what_torch_save_writes_is_no_archive(tmp_path):
    torch.save(random_clip().state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("constants.pkl")
    assert not torchscript.is_archive(tmp_path / "weights.pt")
    assert not torchscript.is_archive(tmp_path / "text.pt")


class Intruder:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_an_archive_is_not_run(archive, tmp_path):
    path, trace = archive(Published(random_clip()).eval()), tmp_path / "trace"
    replaced(path, "data.pkl", pickle.dumps(Intruder(trace), protocol=2))
    with pytest.raises(BenchError, match=r"refused.*asks for .*open"):
        backbones.load("tiny", str(path), "cpu")
    assert not trace.exists()


def test_a_tensor_that_reaches_past_its_numbers_is_refused(archive):
    path = archive(Published(random_clip()).eval())
    with zipfile.ZipFile(path) as whole:
        longest = max((info for info in whole.infolist() if "/data/" in info.filename), key=lambda info: info.file_size)
        cut = whole.read(longest.filename)[:-64]
    replaced(path, longest.filename.split("/", 1)[1], cut)
    with pytest.raises(BenchError, match="no weights can be read.*elements"):
        backbones.load("tiny", str(path), "cpu")


@pytest.mark.parametrize("damage", ["cut short", "a flipped bit"])
def test_a_damaged_archive_is_refused(archive, damage):
    path = archive(Published(random_clip()).eval())
    data = bytearray(path.read_bytes())
    if damage == "cut short":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 16
    path.write_bytes(data)
    with pytest.raises(BenchError, match="ViT-tiny.pt: (no weights can be read|refused)") as caught:
        backbones.load("tiny", str(path), "cpu")
    assert "\n" not in str(caught.value)


def test_an_archive_of_another_architecture_names_the_difference(archive):
    path = archive(Published(random_clip()).eval())
    with pytest.raises(BenchError, match=r"does not fit tiny-64: visual.positional_embedding is \(17, 32\) in the file"):
        backbones.load("tiny-64", str(path), "cpu")


def test_numbers_in_the_order_of_another_machine_are_refused(archive):
    path = archive(Published(random_clip()).eval())
    with zipfile.ZipFile(path) as whole:
        has_order = any(name.endswith("/byteorder") for name in whole.namelist())
    if not has_order:
        with zipfile.ZipFile(path, "a") as more:
            more.writestr(f"{more.namelist()[0].split('/')[0]}/byteorder", b"big")
    else:
        replaced(path, "byteorder", b"big")
    with pytest.raises(BenchError, match="big-endian"):
        backbones.load("tiny", str(path), "cpu")
