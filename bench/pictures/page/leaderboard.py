"""One self-contained HTML page of leaderboards: a ranked table for every set of conditions, each with who, when and with what."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.pictures.file_names import slug
from bench.pictures.page.page_tables import PageTable, page_table
from bench.pictures.page.places import shown
from bench.pictures.page.template import fill
from bench.pictures.page.write import refuse_folder
from bench.reports.formats import percent
from bench.reports.leaderboard import IMAGES, WEIGHTS, Board, boards, to_table
from bench.results.metrics import METRICS
from bench.results.records import restrictions
from bench.results.run_facts import NOT_STATED
from bench.system.files import write_atomically

# conditions by which several boards of one protocol are told apart in links, in this order
TELLING = ("protocol_version", "backbone", "pretrained", "exemplars", "templates", "limits", WEIGHTS, IMAGES)
DIGESTS = (WEIGHTS, IMAGES)
START = 8  # of a digest


@dataclass(frozen=True)
class BoardSection:
    """A board as the page shows it."""

    anchor: str
    name: str
    board: Board
    table: PageTable

    @property
    def equal(self) -> str:
        """The conditions beside the protocol, in one line."""
        return self.board.heading.split(" ", 1)[1].lstrip("(").replace("),", ",", 1)

    @property
    def best(self) -> str:
        place = self.board.places[0]
        if self.board.ranks[0] is None:
            return "-"
        return f"{place.method}, {METRICS[self.board.final].title} {percent(place.mean(self.board.final))}"

    @property
    def by(self) -> str:
        return self.board.places[0].who if self.board.ranks[0] is not None else "-"


def write(paths: Sequence[Path], output: Path) -> Path:
    """Write the leaderboards of these results folders and published files."""
    refuse_folder(output, "leaderboard.html")
    write_atomically(output, render(boards(list(paths), lambda path: shown(path.resolve()))))
    return output


def render(found: Sequence[Board]) -> str:
    """The page."""
    sections = [_section(number, board, found) for number, board in enumerate(found, 1)]
    return fill(
        "leaderboard.html",
        sections=sections,
        places=sum(len(board.places) for board in found),
        methods=sorted({place.method for board in found for place in board.places}),
        restrictions=restrictions,
        digests=DIGESTS,
    )


def _section(number: int, board: Board, found: Sequence[Board]) -> BoardSection:
    table = to_table(board)
    meanings = {METRICS[name].title: METRICS[name].summary for name in board.metrics}
    anchor = f"{number}-{slug(board.conditions['protocol'])}"
    return BoardSection(anchor, _name(board, found), board, page_table(table, meanings=meanings))


def _name(board: Board, found: Sequence[Board]) -> str:
    """How links call a board: its protocol, and as many conditions as tell it from the others of that protocol."""
    protocol = board.conditions["protocol"]
    others = [other for other in found if other is not board and other.conditions["protocol"] == protocol]
    said = []
    for name in TELLING:
        if any(other.conditions[name] != board.conditions[name] for other in others):
            others = [other for other in others if other.conditions[name] == board.conditions[name]]
            said.append(f"{name.replace('_', ' ')} {_short(board, name)}")
    return protocol + (f" ({'; '.join(said)})" if said else "")


def _short(board: Board, name: str) -> str:
    value = board.conditions[name] or "none"
    return value[:START] if name in DIGESTS and value != NOT_STATED else value
