"""Draws docs/architecture.svg: the packages of bench/ and the arrows between them, read from the code.

    python docs/architecture.py

Where a package stands is written here. What it is for is the first sentence of its docstring, and an arrow is an import, also
one inside a function or for type checkers. An arrow that others imply is left out (commands/ needs checks/, checks/ needs
runs/: that commands/ needs runs/ too is not drawn); one that goes up is drawn in red. Plain SVG that follows the reader's
light or dark setting. A text that is longer than its box is an error.
"""

import ast
import textwrap
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILE = Path(__file__).with_suffix(".svg")
WIDTH, HEIGHT = 980, 980
CHARACTER = {"name": 8.1, "text": 6.9}  # pixels, at most on average
STYLE = """
  svg { font-family: ui-sans-serif, system-ui, 'Helvetica Neue', Arial, sans-serif; }
  .page { fill: #ffffff; }
  .box { fill: #f3f6fa; stroke: #5b6b7f; stroke-width: 1.2; }
  .ours { fill: #e3f0e6; stroke: #4c7a57; }
  .name { fill: #12202f; font-size: 14px; font-weight: 600; }
  .text { fill: #33475b; font-size: 12.5px; }
  .arrow { fill: none; stroke: #33475b; stroke-width: 1.6; }
  .head { fill: #33475b; }
  .up { stroke: #c62828; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #10161d; }
    .box { fill: #1b2530; stroke: #8496aa; }
    .ours { fill: #1c3023; stroke: #7fb38d; }
    .name { fill: #eef3f8; }
    .text { fill: #c3d0dd; }
    .arrow { stroke: #c3d0dd; }
    .head { fill: #c3d0dd; }
    .up { stroke: #ff8a80; }
  }
"""
# from the roof to the ground: an arrow goes from an earlier name to a later one
ORDER = (
    "methods", "protocols", "commands", "checks", "runs", "learning", "pictures", "gate", "streams", "reports", "clip",
    "results", "images", "system", "errors",
)  # fmt: skip
PLUG_INS, LEFT, RIGHT = 20, 270, 650  # where the three columns begin
NARROW, COLUMN, HALF = 210, 310, 145  # widths
WHOLE = RIGHT + COLUMN - LEFT
LANE = (LEFT + COLUMN + RIGHT) // 2  # between the two columns, for arrows from one to the other
Arrow = tuple[str, str]
ON_PLUG_INS = (
    "Green: found by name through", "entry points, as are packages", "of other people. They import",
    "public names: from bench", "import Method, Protocol ...",
)  # fmt: skip
ON_COLUMNS = (
    "The left column learns, with", "torch. The right one reads", "what was stored, without it;", "runs/ lies above both.",
)  # fmt: skip


# -- what the code says -----------------------------------------------------------------------------------------


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def box_of(module: str) -> str:
    """The box that a module lies in; "" for the public names, which lie in none."""
    first, _, rest = module.partition(".")
    name = rest.split(".")[0] if first == "bench" else first
    return name if name in ORDER else ""


def imported(tree: ast.Module) -> set[str]:
    """The modules that a module imports, or imports from; a public name of bench/ counts for the module that it lies in."""
    from bench.system.public_names import MODULE_OF

    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "bench":
            names |= {MODULE_OF.get(alias.name, f"bench.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def all_arrows() -> set[Arrow]:
    arrows = set()
    for top in ("bench", "methods", "protocols"):
        for path in (ROOT / top).rglob("*.py"):
            own = box_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
            arrows |= {(own, box_of(name)) for name in imported(parsed(path))}
    return {(one, other) for one, other in arrows if one and other and one != other}


def goes_down(arrow: Arrow) -> bool:
    return ORDER.index(arrow[0]) < ORDER.index(arrow[1])


def implied(arrow: Arrow, arrows: set[Arrow]) -> bool:
    """Whether another way leads from its start to its end. `arrows` all go down, so every way comes to an end."""

    def leads_to_the_end(name: str) -> bool:
        return name == arrow[1] or any(leads_to_the_end(other) for one, other in arrows if one == name)

    return any(leads_to_the_end(other) for one, other in arrows if one == arrow[0] and other != arrow[1])


def drawn_arrows() -> list[Arrow]:
    arrows = all_arrows()
    down = {arrow for arrow in arrows if goes_down(arrow)}
    return sorted({arrow for arrow in down if not implied(arrow, down)} | (arrows - down))


def purpose(package: str) -> str:
    """The first sentence of its docstring."""
    words = ast.get_docstring(parsed(ROOT / "bench" / package / "__init__.py")) or ""
    return words.replace("\n", " ").split(". ")[0]


def folders_in(top: str) -> list[str]:
    return [path.parent.name for path in sorted((ROOT / top).glob("*/__init__.py"))]


def files_in(top: str) -> list[str]:
    return [path.stem for path in sorted((ROOT / top).glob("*.py")) if path.stem != "__init__"]


# -- boxes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Box:
    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...] = ()
    kind: str = "box"

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def middle(self) -> int:
        return self.y + self.height // 2

    def svg(self) -> str:
        size = f'x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}"'
        left, room = self.x + 10, self.width - 20
        if self.lines and 41 + 17 * len(self.lines) > self.height + 10:
            raise ValueError(f"{self.title}: {len(self.lines)} lines need more than {self.height} pixels")
        frame, title = f'<rect class="{self.kind}" {size} rx="6"/>', text(left, self.y + 22, self.title, "name", room)
        lines = [text(left, self.y + 41 + 17 * i, line, "text", room) for i, line in enumerate(self.lines)]
        return "\n".join([frame, title, *lines])


def text(x: int, y: int, words: str, kind: str, room: int) -> str:
    if len(words) * CHARACTER[kind] > room:
        raise ValueError(f"{words!r} needs more than {room} pixels")
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(words)}</text>'


def wrapped(words: str, width: int) -> tuple[str, ...]:
    return tuple(textwrap.wrap(words, int((width - 20) / CHARACTER["text"]), break_on_hyphens=False))


def package(name: str, x: int, y: int, width: int = COLUMN, height: int = 90) -> Box:
    return Box(x, y, width, height, f"{name}/", wrapped(purpose(name), width))


def plug_ins(title: str, y: int, height: int, words: str, names: list[str]) -> Box:
    return Box(PLUG_INS, y, NARROW, height, title, (*wrapped(words, NARROW), *wrapped(", ".join(names), NARROW)), "box ours")


def boxes() -> dict[str, Box]:
    return {
        "methods": plug_ins("methods/", 186, 282, "What learns, in families:", folders_in("methods") + files_in("methods")),
        "protocols": plug_ins("protocols/", 490, 202, "Streams of tasks:", [*files_in("protocols"), *folders_in("protocols")]),
        "commands": package("commands", LEFT, 80, WHOLE, 52),
        "checks": package("checks", LEFT, 154),
        "runs": package("runs", LEFT, 266),
        "learning": package("learning", LEFT, 378),
        "streams": package("streams", LEFT, 490),
        "clip": package("clip", LEFT, 602),
        "images": package("images", LEFT, 714),
        "pictures": package("pictures", RIGHT, 378, HALF),
        "gate": package("gate", RIGHT + COLUMN - HALF, 378, HALF),
        "reports": package("reports", RIGHT, 490),
        "results": package("results", RIGHT, 602),
        "system": package("system", LEFT, 826, WHOLE, 70),
        "errors": Box(LEFT, 918, WHOLE, 36, "errors.py"),
    }


# -- arrows -----------------------------------------------------------------------------------------------------


def way(start: Box, end: Box) -> list[tuple[int, int]]:
    """Straight where the boxes face each other, else out into the lane between the columns."""
    left, right = max(start.x, end.x), min(start.right, end.right)
    if left < right:
        x = (left + right) // 2
        return [(x, start.bottom), (x, end.y - 3)] if start.y < end.y else [(x + 30, start.y), (x + 30, end.bottom + 3)]
    top, bottom = max(start.y, end.y), min(start.bottom, end.bottom)
    if top < bottom:
        y = (top + bottom) // 2
        return [(start.right, y), (end.x - 3, y)] if start.x < end.x else [(start.x, y), (end.right + 3, y)]
    leaves, arrives = (start.right, end.x - 3) if start.x < end.x else (start.x, end.right + 3)
    return [(leaves, start.middle), (LANE, start.middle), (LANE, end.middle), (arrives, end.middle)]


def arrow_svg(arrow: Arrow, places: dict[str, Box]) -> str:
    points = " ".join(f"{x},{y}" for x, y in way(places[arrow[0]], places[arrow[1]]))
    kind = "arrow" if goes_down(arrow) else "arrow up"
    return f'<polyline class="{kind}" points="{points}" marker-end="url(#head)"/>'


def draw() -> str:
    places = boxes()
    summary = "An arrow points to what is needed. One that others imply is left out, one that goes up is red."
    words = [text(PLUG_INS, 36, "Who imports whom", "name", 500), text(PLUG_INS, 58, summary, "text", WIDTH)]
    words += [text(PLUG_INS, 100 + 17 * i, line, "text", NARROW + 20) for i, line in enumerate(ON_PLUG_INS)]
    words += [text(PLUG_INS, 744 + 17 * i, line, "text", NARROW + 20) for i, line in enumerate(ON_COLUMNS)]
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {size} role="img">',
            "<title>The packages of the harness and their imports</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
            '<path class="head" d="M 0 0 L 10 5 L 0 10 z"/></marker></defs>',
            f'<rect class="page" {size}/>',
            *[box.svg() for box in places.values()],
            *[arrow_svg(arrow, places) for arrow in drawn_arrows()],
            *words,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    FILE.write_text(draw(), encoding="utf-8")
    print(FILE.name)
