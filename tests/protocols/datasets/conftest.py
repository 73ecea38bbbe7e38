"""Empty folders for miniature copies; nothing here may go to the network."""

import pytest

from bench.images.dataset import Folders


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Folders:
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    return Folders(tmp_path / "data", tmp_path / "cache")
