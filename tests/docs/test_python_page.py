"""What README and docs/python.md show of the Python interface is run: of README this part alone, which is quick."""

import re

import pytest

from tests.docs import page_commands
from tests.docs.test_pages import PAGES, cache  # noqa: F401  (a fixture)


@pytest.mark.thorough
def test_the_notebook_of_the_readme_runs(tmp_path, cache):  # noqa: F811
    section = re.search(r"^## From Python\n.*?(?=^## )", PAGES["README"], re.MULTILINE | re.DOTALL)[0]
    [code] = [block for block in page_commands.blocks(section) if block.word == "file"]
    assert len(code.text.splitlines()) <= 12 and "bench.run(" in code.text and "bench.table(" in code.text
    assert page_commands.Reader(tmp_path, cache).follow(section) == 2


@pytest.mark.thorough
def test_the_code_of_the_python_page_runs(tmp_path, cache):  # noqa: F811
    page = PAGES["python"]
    assert page_commands.Reader(tmp_path, cache).follow(page) == 1
    pieces = [block.rest for block in page_commands.blocks(page) if block.word == "file"]
    [command] = [block.text for block in page_commands.blocks(page) if block.word == "before"]
    assert command.startswith(f"cat {' '.join(pieces)} > page.py") and page.count("```python") == len(pieces)
