"""What a user reads when something cannot be read: one line with the place and the reason."""

import pytest

from bench.errors import BenchError, closest, reading, unknown_name


def test_a_file_that_cannot_be_read_becomes_one_line(tmp_path):
    with pytest.raises(BenchError) as caught, reading(tmp_path / "a.csv", advice="run again"):
        (tmp_path / "a.csv").read_text()
    assert str(caught.value) == f"{tmp_path / 'a.csv'}: cannot be read (No such file or directory); run again"
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_only_what_a_file_can_make_fail_is_put_into_words():
    with pytest.raises(ZeroDivisionError), reading("a.csv"):
        _ = 1 / 0
    with pytest.raises(BenchError, match=r"^a: no number \(invalid literal .*\)$"), reading("a", "no number", (ValueError,)):
        int("x")


def test_an_error_of_ours_is_not_wrapped_again():
    with pytest.raises(BenchError, match="^said already$"), reading("a.csv", errors=(OSError, ValueError)):
        raise BenchError("said already")


def test_the_reason_is_one_line_without_control_characters():
    with pytest.raises(BenchError) as caught, reading("a.csv", errors=(ValueError,)):
        raise ValueError("first\n\x1b[31msecond\x07")
    assert str(caught.value) == "a.csv: cannot be read (first second)"


def test_at_most_five_names_are_offered_the_closest_first():
    known = [f"clip-{number}" for number in range(20)]
    assert closest("clip-7", known)[0] == "clip-7" and len(closest("clip-7", known)) == 5


def test_where_no_name_is_close_the_command_that_lists_them_is_named_and_not_a_hundred_names():
    many = [f"name{number}" for number in range(130)]
    assert str(unknown_name("method", "qqq", many)) == "unknown method 'qqq'; bench list methods names all 130"
    assert str(unknown_name("class", "qqq", many)).endswith("name124 and 100 more")
    assert str(unknown_name("metric", "q", ["a", "b"])) == "unknown metric 'q'; known: a, b (bench list metrics names them all)"
    assert str(unknown_name("key", "q", [])) == "unknown key 'q'; known: none"
