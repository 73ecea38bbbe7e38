"""What docs/regenerate.py writes into a page, and that it leaves alone what somebody else writes meanwhile."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = """\
# A page

<!-- run: python prepare.py -->
<!-- output: python first.py -->
old
<!-- end -->

Text.

<!-- output: python second.py -->
<!-- end -->
"""


@pytest.fixture
def regenerate():
    """docs/regenerate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_regenerate", ROOT / "docs" / "regenerate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def run_in(folder: Path, **scripts: str) -> None:
    folder.mkdir()
    for name, text in scripts.items():
        (folder / f"{name}.py").write_text(text)


def test_blocks_get_what_their_commands_print_in_order(regenerate, page, tmp_path):
    run_in(
        tmp_path / "out",
        prepare="open('made', 'w').write('from the file')",
        first="print(open('made').read())",
        second="print('two')\nprint('lines')",
    )
    regenerate.renew(page, tmp_path / "out")
    wanted = PAGE.replace("old\n", "from the file\n").replace("second.py -->\n", "second.py -->\ntwo\nlines\n")
    assert page.read_text() == wanted


def test_an_edit_while_the_commands_run_is_kept(regenerate, page, tmp_path, monkeypatch, capsys):
    def output_of(command: str, folder: Path) -> str:
        text = page.read_text()
        if "second" in command:  # the last one: until now nothing has been written
            assert "old" in text
            page.write_text(text.replace("Text.", "Other text.\n\n<!-- output: python third.py -->\nmine\n<!-- end -->"))
        return f"of {command}\n"

    monkeypatch.setattr(regenerate, "output_of", output_of)
    regenerate.renew(page, tmp_path)
    text = page.read_text()
    assert "Other text." in text and "third.py -->\nmine\n<!-- end -->" in text
    assert "of python first.py\n<!-- end -->" in text and "of python second.py\n<!-- end -->" in text and "old" not in text
    assert "edited meanwhile; run this again for python third.py" in capsys.readouterr().err


def test_a_command_that_fails_leaves_the_page_as_it_was(regenerate, page, tmp_path):
    run_in(tmp_path / "out", prepare="", first="print(1)", second="raise SystemExit(3)")
    with pytest.raises(regenerate.subprocess.CalledProcessError):
        regenerate.renew(page, tmp_path / "out")
    assert page.read_text() == PAGE


@pytest.mark.parametrize("named", ["docs/pictures", "../../docs/pictures"])
def test_docs_is_that_of_the_checkout_whatever_the_folder(regenerate, named, tmp_path):
    run_in(tmp_path / "out", show="import sys\nprint(*sys.argv[1:])")
    shown = regenerate.output_of(f"python show.py results/docs {named} ../docs", tmp_path / "out")
    assert shown == f"results/docs {ROOT / 'docs' / 'pictures'} ../docs\n"
