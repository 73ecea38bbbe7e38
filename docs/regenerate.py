"""Run what the README and the docs show, and write the real output into them.

    python docs/regenerate.py [PAGE ...] [--out FOLDER]

Between two marker lines, <!-- output: COMMAND --> and <!-- end -->, the output of COMMAND is put; a line <!-- run: COMMAND -->
prepares for what follows it. Commands run in a folder of their own whose results stay there, so a second call only does
what is missing; from scratch it takes hours. A page is read again when its commands are done, so that it may be edited
meanwhile.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"<!-- run: (?P<preparation>.+?) -->|(?P<head><!-- output: (?P<command>.+?) -->\n).*?(?P<tail><!-- end -->)", re.DOTALL
)
IN_DOCS = re.compile(r"(?:\.\./\.\./)?(docs/.+)")  # as a reader of the page writes it, or as it is seen from results/docs


def output_of(command: str, folder: Path) -> str:
    """Standard output of a command, as a fenced block unless it is Markdown already."""
    folder.mkdir(parents=True, exist_ok=True)
    # files of docs/ that a command names lie in the checkout whatever the folder, its results in the folder
    parts = [str(ROOT / named[1]) if (named := IN_DOCS.fullmatch(part)) else part for part in shlex.split(command)]
    executable = [sys.executable, "-m", "bench"] if parts[0] == "bench" else [sys.executable]
    environment = os.environ | {"COLUMNS": "120", "PYTHONPATH": str(ROOT)}
    print(f"$ {command}", file=sys.stderr)
    found = subprocess.run(executable + parts[1:], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    text = found.stdout.strip("\n")
    return f"{text}\n" if "markdown" in command or parts[0] == "python" else f"```\n{text}\n```\n"


def outputs_of(text: str, folder: Path) -> dict[str, str]:
    """What the commands of a page print, by command. All of them are run, in their order."""
    outputs = {}
    for block in BLOCK.finditer(text):
        output = output_of(block["preparation"] or block["command"], folder)
        if block["command"]:
            outputs[block["command"]] = output
    return outputs


def filled(text: str, outputs: dict[str, str]) -> str:
    """The page with these outputs in its blocks; a block whose command has not been run stays as it is."""

    def renewed(block: re.Match) -> str:
        return block["head"] + outputs[block["command"]] + block["tail"] if block["command"] in outputs else block[0]

    return BLOCK.sub(renewed, text)


def renew(page: Path, folder: Path) -> None:
    """Run the commands of a page, and write their output into the page as it is by then."""
    outputs = outputs_of(page.read_text(), folder)
    text = page.read_text()
    renewed = filled(text, outputs)
    if renewed != text:
        page.write_text(renewed)
        print(f"{page}: renewed", file=sys.stderr)
    left = [block["command"] for block in BLOCK.finditer(text) if block["command"] and block["command"] not in outputs]
    if left:
        print(f"{page}: edited meanwhile; run this again for {'; '.join(left)}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", type=Path, nargs="*", metavar="PAGE", help="all of them by default")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "docs", help="folder in which the commands run")
    chosen = parser.parse_args()
    for page in [page.resolve() for page in chosen.pages] or PAGES:
        renew(page, chosen.out.resolve())


if __name__ == "__main__":
    main()
