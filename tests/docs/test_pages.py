"""Documentation that works: every command in it is run, or says why it is not."""

import re
from pathlib import Path

import pytest

from tests.docs import page_commands

ROOT = Path(__file__).parent.parent.parent
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
BEHIND_OUTPUT = re.compile(r"<!-- (?:run|output): (bench (?:run|table|show|metrics) .+?) -->")  # for docs/regenerate.py
LONG = ("clusters", "embeddings", "real-data", "reproducing", "tuning")  # together as long as all others
FOLLOWED = [
    pytest.param(
        name, marks=pytest.mark.slow if page_commands.is_slow(page) else pytest.mark.thorough if name in LONG else ()
    )
    for name, page in PAGES.items()
    if any(block.word == "tested" for block in page_commands.blocks(page))
]


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Images and features that the pages share."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_commands_is_tested_or_says_why_not(name):
    assert page_commands.complaints(PAGES[name]) == []


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if BEHIND_OUTPUT.search(page)])
def test_a_page_shows_the_commands_behind_its_output(name):
    shown = {command for block in page_commands.blocks(PAGES[name]) for command in block.commands}
    assert set(BEHIND_OUTPUT.findall(PAGES[name])) <= shown


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_commands_of_a_page_work_in_their_order(name, tmp_path, cache, forked):
    assert page_commands.Reader(tmp_path, cache, forked).follow(PAGES[name]) > 0


# -- the reader of pages itself ---------------------------------------------------------------------------------

PAGE = """\
# A page

<!-- file: sub/words.txt -->

    one   # kept as it is

    two

Text.

<!-- before: touch hidden -->
<!-- tested -->
```sh
cat sub/words.txt hidden   # a comment
printf '%s' \\
    continued > made
```

<!-- tested: exit 3 with --unused -->
    (exit 3)

<!-- not tested: bench is only mentioned -->
    bench run --somewhere else

<!-- output: bench list -->
```
bench looks like a command here
```
<!-- end -->
"""


def test_a_page_is_followed_in_order(tmp_path):
    reader = page_commands.Reader(tmp_path, tmp_path / "cache")
    assert page_commands.complaints(PAGE) == []
    assert reader.follow(PAGE) == 4
    assert (reader.here / "sub" / "words.txt").read_text() == "one   # kept as it is\n\ntwo\n"
    assert (reader.here / "made").read_text() == "continued"


@pytest.mark.parametrize(
    "page", ["<!-- tested -->\n    false\n", "<!-- tested: exit 2 -->\n    true\n", "<!-- before: false -->\n"]
)
def test_a_wrong_exit_code_is_an_error(page, tmp_path):
    with pytest.raises(AssertionError, match="exit code"):
        page_commands.Reader(tmp_path, tmp_path / "cache").follow(page)


@pytest.mark.parametrize(("name", "code"), [("pytest", 0), ("no-such-package-at-all", 1)])
def test_what_pip_is_asked_for_by_name_must_be_there(name, code, tmp_path):
    page_commands.Reader(tmp_path, tmp_path / "cache").follow(f"<!-- tested: exit {code} -->\n    pip install {name}\n")
    assert not (tmp_path / "site").exists()


def test_options_go_to_runs_only(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(page_commands.Reader, "run", lambda self, command, *_: asked.append(command))
    page = "<!-- tested: with --limit-test 2 -->\n    bench run --methods coop  # all\n    bench table results/\n"
    page_commands.Reader(tmp_path, tmp_path / "cache").follow(page)
    assert asked == ["bench run --methods coop --limit-test 2", "bench table results/"]


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("    bench list\n", "without a marker"),
        ("```\nBENCH_DATA=there bench list\n```\n", "without a marker"),
        ("    source .venv/bin/activate\n", "without a marker"),
        ("<!-- tested -->\n\nText, no block.\n", "no block follows"),
        ("<!-- tested -->\n", "no block follows"),
        ("<!-- not tested -->\n    bench list\n", "lacks its reason"),
        ("<!-- tested -->\n<!-- tested -->\n    bench list\n", "two markers"),
        ("```\nbench list\n", "never closed"),
    ],
)
def test_what_is_neither_tested_nor_left_out_is_found(page, complaint):
    assert complaint in " ".join(page_commands.complaints(page))


def test_blocks_that_hold_no_command_need_no_marker():
    page = "    max(1, 2)\n\ntext\n\n    bench.methods =\n        a = b:C\n\n```\npython = 3\n```\n"
    assert page_commands.complaints(page) == []
