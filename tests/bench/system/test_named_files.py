from dataclasses import dataclass

import pytest

from bench.errors import BenchError
from bench.learning.settings import setting
from bench.runs.assignments import identifying, restored
from bench.system import named_files


@dataclass(frozen=True)
class Named:
    words: str | None = setting(None, "words", names_file=True)
    epochs: int = setting(3, "epochs")


def test_a_file_comes_back_as_its_path_and_is_known_by_its_content(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    settings = identifying(Named("a.json"))
    assert restored(Named, settings) == Named(str(tmp_path / "a.json"))  # found from any folder
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    moved = identifying(Named("b.json"))
    assert moved != settings and named_files.by_content(moved) == named_files.by_content(settings)
    (tmp_path / "b.json").write_text("{ }")
    assert named_files.by_content(identifying(Named("b.json"))) != named_files.by_content(settings)


def test_without_a_file_nothing_changes():
    assert identifying(Named()) == named_files.by_content(identifying(Named())) == {"words": None, "epochs": 3}


def test_a_file_that_is_not_there_is_said_in_one_line():
    with pytest.raises(BenchError, match=r"words=/not/here.json: no file that can be read") as error:
        identifying(Named("/not/here.json"))
    assert "\n" not in str(error.value)


def test_records_name_the_file_and_the_start_of_its_digest(tmp_path):
    (tmp_path / "a;b.json").write_text("{}")
    value = named_files.with_digest("words", str(tmp_path / "a;b.json"))
    text = named_files.in_records("a;b.json", value)
    assert text == f"a;b.json@{value['sha256'][:8]}" and named_files.as_given(text) == "a;b.json"
    assert named_files.is_digest(named_files.by_content({"words": value})["words"])
