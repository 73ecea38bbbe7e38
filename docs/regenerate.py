"""Run what the README and the docs show, and write the real output into them.

    python docs/regenerate.py [PAGE ...] [--out FOLDER]

Between two marker lines, <!-- output: COMMAND --> and <!-- end -->, the output of COMMAND is put; a line <!-- run: COMMAND -->
prepares for what follows it. Commands run in a folder of their own whose results stay there, so a second call only does
what is missing. From scratch it takes about half an hour on two cores.
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
    r"(?P<run><!-- run: (?P<preparation>.+?) -->)|(?P<head><!-- output: (?P<command>.+?) -->\n).*?(?P<tail><!-- end -->)",
    re.DOTALL,
)


def output_of(command: str, folder: Path) -> str:
    """Standard output of a command, as a fenced block unless it is Markdown already."""
    folder.mkdir(parents=True, exist_ok=True)
    # files that a command names lie in the checkout, its results in the folder
    parts = [str(ROOT / part) if part.startswith("docs/") else part for part in shlex.split(command)]
    executable = [sys.executable, "-m", "bench"] if parts[0] == "bench" else [sys.executable]
    environment = os.environ | {"COLUMNS": "120", "PYTHONPATH": str(ROOT)}
    print(f"$ {command}", file=sys.stderr)
    found = subprocess.run(executable + parts[1:], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    text = found.stdout.strip("\n")
    return f"{text}\n" if "markdown" in command or parts[0] == "python" else f"```\n{text}\n```\n"


def renew(block: re.Match, folder: Path) -> str:
    """The block with its command's present output."""
    if block["run"]:
        output_of(block["preparation"], folder)
        return block["run"]
    return block["head"] + output_of(block["command"], folder) + block["tail"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", type=Path, nargs="*", metavar="PAGE", help="all of them by default")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "docs", help="folder in which the commands run")
    chosen = parser.parse_args()
    folder = chosen.out.resolve()
    for page in [page.resolve() for page in chosen.pages] or PAGES:
        text = page.read_text()
        renewed = BLOCK.sub(lambda block: renew(block, folder), text)
        if renewed != text:
            page.write_text(renewed)
            print(f"{page.relative_to(ROOT)}: renewed", file=sys.stderr)


if __name__ == "__main__":
    main()
