import json

import pytest
import torch

from bench.errors import BenchError
from methods.engine.descriptions import Descriptions

NAMES = ("red", "green", "blue", "yellow")


def described(names=NAMES, per_pair=2) -> dict:
    return {a: {b: [f"{a.upper()} not {b} {k}" for k in range(per_pair)] for b in names if b != a} for a in names}


@pytest.fixture
def opened(small_backbone, make_stream, tmp_path):
    """opened(content): the descriptions of a stream of four classes, from a file with this text, bytes or object."""
    stream = make_stream(sizes=(2, 2))

    def make(content) -> Descriptions:
        path = tmp_path / "descriptions.json"
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Descriptions(str(path), stream.scenario, small_backbone)

    return make


def test_sentences_of_a_class_are_pooled_and_those_of_a_pair_are_found(opened):
    found = opened(described())
    assert found.pool(0) == list(range(6))
    assert [found.of_name["red"][k].text for k in found.against(0, 2)] == ["RED not blue 0", "RED not blue 1"]
    found.check_pairs()


def test_prompts_have_the_name_as_it_is_and_the_sentence_in_lower_case(opened, small_backbone):
    features = opened(described()).features(1)
    expected = small_backbone.encode_text(["green with green not red 0"])
    torch.testing.assert_close(features[:1], expected, rtol=1e-4, atol=1e-5)
    assert features.shape == (6, 24)


def test_names_of_other_classes_and_of_the_class_itself_are_sentences_like_others(opened):
    content = described()
    content["red"] |= {"red": ["round"], "unicorn": ["no horn"]}
    content["unicorn"] = {"red": ["horn"]}
    found = opened(content)
    assert len(found.pool(0)) == 8 and len(found.pool(0, {"red", "green"})) == 3


def test_a_file_saved_with_a_byte_order_mark_is_read(opened):
    assert opened(b"\xef\xbb\xbf" + json.dumps(described()).encode()).pool(0)


def without(*path):
    content = described()
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return content


@pytest.mark.parametrize(
    "content, said",
    [
        ("{", "not JSON"),
        ("[1, 2]", "one JSON object"),
        (b"\xff\xfe\xfa", "not UTF-8"),
        ("[" * 100_000, "cannot be used"),
        ('{"red": {}, "red": {}}', "'red' stands there twice"),
        (without("blue"), "no descriptions of the class 'blue'"),
        (described() | {"red": ["a sentence"]}, "for 'red' an object is wanted"),
        (described() | {"red": {}}, "no descriptions of the class 'red'"),
        (described() | {"red": {"green": "a sentence"}}, "'red' against 'green': a list of sentences"),
        (described() | {"red": {"green": ["  "]}}, "'red' against 'green': a list of sentences"),
        (described() | {"red": {"green": [1]}}, "'red' against 'green': a list of sentences"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(opened, content, said):
    with pytest.raises(BenchError, match=said) as error:
        opened(content)
    assert "\n" not in str(error.value) and "descriptions.json" in str(error.value)


def test_a_file_that_is_not_there(small_backbone, make_stream):
    with pytest.raises(BenchError, match="cannot be read"):
        Descriptions("/nowhere/at/all.json", make_stream().scenario, small_backbone)


def test_a_missing_pair_is_said_before_training(opened):
    with pytest.raises(BenchError, match="no description of 'blue' against 'red'"):
        opened(without("blue", "red")).check_pairs()


def test_without_later_classes_a_class_needs_one_seen_by_then(opened):
    content = described()
    found = opened(content)
    found.check_seen((0, 0, 1, 1))
    del content["red"]["green"]
    with pytest.raises(BenchError, match="no description of 'red' against a class seen by then"):
        opened(content).check_seen((0, 0, 1, 1))
