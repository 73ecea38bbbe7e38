"""Which of open_clip's architectures can be a backbone."""

import subprocess
import sys

import open_clip
import pytest
import torch

from bench.clip import loading
from bench.clip.architectures import architectures, settings_of
from bench.errors import BenchError

SUPPORTED = [name for name in architectures() if name != "mini"]


def test_mini_and_the_usual_names_are_there_and_captioners_are_not():
    assert architectures()[0] == "mini"
    assert {"ViT-B-16", "ViT-B-32-quickgelu", "ViT-L-14-336", "RN50", "EVA02-B-16", "ViT-bigG-14"} <= set(SUPPORTED)
    assert not {"coca_ViT-B-32", "roberta-ViT-B-32", "ViT-B-16-SigLIP", "MobileCLIP-S1"} & set(SUPPORTED)


def test_every_architecture_of_open_clip_is_either_supported_or_refused_with_a_reason():
    for name in open_clip.list_models():
        if name not in SUPPORTED:
            with pytest.raises(BenchError, match=f"{name} cannot be a backbone: its text tower "):
                settings_of(name)


def test_without_open_clip_one_line_says_what_to_install():
    code = """if True:
        import sys
        from importlib import util
        util.find_spec = lambda name: None
        from bench.clip import architectures  # importing it needs nothing
        try:
            architectures.settings_of("ViT-B-16")
        except architectures.BenchError as error:
            sys.exit(str(error))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "open_clip is not installed, which has the architectures; pip install open_clip_torch\n"


def test_names_are_read_without_importing_torch():
    code = "import sys; from bench.clip.architectures import architectures; architectures(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def check_that_it_can_be_built(name: str) -> None:
    with torch.device("meta"):  # shapes without numbers
        clip = loading._build(settings_of(name), quick_gelu=False)
    width, length = clip.token_embedding.embedding_dim, clip.context_length
    assert clip.positional_embedding.shape == (length, width) and clip.attn_mask.shape == (length, length)
    assert clip.text_projection.shape[0] == width


@pytest.mark.parametrize("name", ["ViT-B-16-quickgelu", "RN50", "MobileCLIP-B", "PE-Core-B-16"])
def test_one_of_each_kind_can_be_built(name):
    check_that_it_can_be_built(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUPPORTED)
def test_every_supported_architecture_can_be_built(name):
    check_that_it_can_be_built(name)
