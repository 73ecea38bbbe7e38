"""Draws docs/architecture.svg: how data flows through the harness.

    python docs/architecture.py

Plain SVG that follows the reader's light or dark setting. A text that is longer than its box is an error.
"""

from dataclasses import dataclass
from html import escape
from pathlib import Path

FILE = Path(__file__).with_suffix(".svg")
WIDTH, HEIGHT = 980, 710
CHARACTER = {"name": 8.1, "text": 6.9}  # pixels, at most on average
STYLE = """
  svg { font-family: ui-sans-serif, system-ui, 'Helvetica Neue', Arial, sans-serif; }
  .page { fill: #ffffff; }
  .box { fill: #f3f6fa; stroke: #5b6b7f; stroke-width: 1.2; }
  .ours { fill: #e3f0e6; stroke: #4c7a57; }
  .frame { fill: none; stroke: #5b6b7f; stroke-width: 1.2; stroke-dasharray: 5 4; }
  .name { fill: #12202f; font-size: 14px; font-weight: 600; }
  .text { fill: #33475b; font-size: 12.5px; }
  .arrow { fill: none; stroke: #33475b; stroke-width: 1.6; }
  .head { fill: #33475b; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #10161d; }
    .box { fill: #1b2530; stroke: #8496aa; }
    .ours { fill: #1c3023; stroke: #7fb38d; }
    .frame { stroke: #8496aa; }
    .name { fill: #eef3f8; }
    .text { fill: #c3d0dd; }
    .arrow { stroke: #c3d0dd; }
    .head { fill: #c3d0dd; }
  }
"""


@dataclass(frozen=True)
class Box:
    x: int
    y: int
    name: str
    lines: tuple[str, ...]
    width: int = 280
    height: int = 80
    kind: str = "box"

    @property
    def middle(self) -> int:
        return self.x + self.width // 2

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def right(self) -> int:
        return self.x + self.width

    def svg(self) -> str:
        size = f'x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}"'
        left, room = self.x + 12, self.width - 24
        lines = [text(left, self.y + 43 + 18 * i, line, "text", room) for i, line in enumerate(self.lines)]
        return "\n".join([f'<rect class="{self.kind}" {size} rx="6"/>', text(left, self.y + 23, self.name, "name", room), *lines])


def text(x: int, y: int, words: str, kind: str, room: int) -> str:
    if len(words) * CHARACTER[kind] > room:
        raise ValueError(f"{words!r} needs more than {room} pixels")
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(words)}</text>'


def arrow(*points: tuple[int, int]) -> str:
    way = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline class="arrow" points="{way}" marker-end="url(#head)"/>'


LEFT, CENTRE, RIGHT = 40, 350, 660
GREEN = "box ours"
COMMAND = Box(RIGHT, 20, "bench run", ("options or a study file", "run_command.py, study.py"))
PLAN = Box(RIGHT, 126, "plan.py", ("runs: protocol, method, seeds,", "hyper-parameters, run id"))
PROTOCOLS = Box(LEFT, 232, "protocols/", ("which data sets, which classes in", "which order, how many exemplars"), kind=GREEN)
METHODS = Box(CENTRE, 232, "methods/", ("a class each: learn(task),", "logits(batch, classes)"), kind=GREEN)
LAUNCH = Box(RIGHT, 232, "launch.py", ("this process, workers (local_pool.py)", "or jobs of a cluster (slurm.py)"))
STREAM = Box(LEFT, 374, "stream.py", ("tasks: images as pixels, or as", "features (features.py, backbone.py)"))
METHOD = Box(CENTRE, 374, "method.py", ("learns a task from its training", "images, scores test images"))
EVALUATION = Box(RIGHT, 374, "evaluation.py", ("which classes compete; per-image", "scores, accuracies"))
RESULTS = Box(CENTRE, 542, "results/", ("a folder each run: records.csv,", "samples.safetensors, manifest.json"))
READERS = (
    Box(40, 650, "metrics.py, tables.py", (), 205, 40),
    Box(272, 650, "compare.py, ranking.py", (), 205, 40),
    Box(504, 650, "gate.py", (), 205, 40),
    Box(736, 650, "plots.py, report.py", (), 204, 40),
)


def draw() -> str:
    boxes = [COMMAND, PLAN, PROTOCOLS, METHODS, LAUNCH, STREAM, METHOD, EVALUATION, RESULTS, *READERS]
    middle = STREAM.y + STREAM.height // 2
    below = STREAM.bottom + 22
    down = [(COMMAND, PLAN), (PLAN, LAUNCH), (PROTOCOLS, STREAM), (METHODS, METHOD)]
    arrows = [arrow((a.middle, a.bottom), (b.middle, b.y - 3)) for a, b in down]
    frame, beside, edge = 346, EVALUATION.right - 40, RESULTS.y + RESULTS.height // 2
    arrows += [
        arrow((LAUNCH.middle, LAUNCH.bottom), (LAUNCH.middle, frame - 3)),
        arrow((STREAM.right, middle), (METHOD.x - 3, middle)),
        arrow((METHOD.right, middle), (EVALUATION.x - 3, middle)),
        arrow(
            (STREAM.middle, STREAM.bottom), (STREAM.middle, below),
            (EVALUATION.middle, below), (EVALUATION.middle, EVALUATION.bottom + 3),
        ),
        arrow((beside, EVALUATION.bottom), (beside, edge), (RESULTS.right + 3, edge)),
    ]  # fmt: skip
    split = RESULTS.bottom + 14
    for reader in READERS:
        corner = (RESULTS.middle, split), (reader.middle, split)
        arrows.append(arrow((RESULTS.middle, RESULTS.bottom), *corner, (reader.middle, reader.y - 3)))
    words = [
        text(LEFT, 44, "How data flows", "name", 500),
        text(LEFT, 68, "Arrows show where data goes. Imports between the packages go one way only:", "text", 580),
        text(LEFT, 86, "methods/ and protocols/ (green) import bench/, packages of others import", "text", 580),
        text(LEFT, 104, "any of the three, and bench/ finds all by name, through entry points.", "text", 580),
        text(LEFT, 140, "The right column above the dashed frame decides what is run, without torch.", "text", 580),
        text(LEFT, 158, "What stands below the results reads files only, without torch, too.", "text", 580),
        text(LEFT, 501, "runner.py: one run, task after task, a checkpoint after each", "text", 600),
        text(STREAM.middle + 12, below - 6, "test images", "text", 120),
    ]
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {size} role="img">',
            "<title>How data flows through the harness</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
            '<path class="head" d="M 0 0 L 10 5 L 0 10 z"/></marker></defs>',
            f'<rect class="page" {size}/>',
            f'<rect class="frame" x="20" y="{frame}" width="{WIDTH - 40}" height="168" rx="8"/>',
            *[box.svg() for box in boxes],
            *arrows,
            *words,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    FILE.write_text(draw())
    print(FILE.name)
