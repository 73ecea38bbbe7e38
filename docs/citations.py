"""The papers of the methods, from what their classes say (the attribute `paper`).

    python docs/citations.py list        method -> paper
    python docs/citations.py bibtex      an entry for every paper; `and others` where the class names first authors only
"""

import argparse
import re
from dataclasses import dataclass

from bench.reports.formats import Table, TableCell, write
from bench.system import registry

ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
QUOTED = re.compile(r'"(?P<title>[^"]+)", (?P<authors>[^;]+?), (?P<rest>(?:[A-Z][A-Za-z]* )?\d{4}.*|arXiv .*)')


@dataclass(frozen=True)
class Paper:
    """One paper, as far as a class names it."""

    arxiv: str  # its number; empty if the class names none
    title: str
    authors: str
    venue: str  # "CVPR 2023"; empty if the class names none
    year: str

    @property
    def key(self) -> str:
        """What it is cited by: arxiv:2301.00001 or, of a paper without a number, cvpr2026:first-words-of-its-title.

        >>> Paper("", "Subspace Alignment for CLIP: A Study", "Zhang et al.", "CVPR 2026", "2026").key
        'cvpr2026:subspace-alignment-for-clip'
        """
        if self.arxiv:
            return f"arxiv:{self.arxiv}"
        words = re.findall(r"\w+", self.title.lower())[:4]
        return f"{self.venue.lower().replace(' ', '')}:{'-'.join(words)}"


def statements() -> dict[str, str]:
    """method -> what its class says about its paper; built-in methods only."""
    built_in = [entry.name for entry in registry.entries("method") if entry.package == registry.BUILT_IN]
    return {name: registry.load("method", name).paper for name in built_in}


def parse(statement: str) -> Paper | None:
    """The paper that a statement names in full; None if it names none.

    >>> parse('"A Title", Li and Hoiem, ECCV 2016, arXiv 1606.09282; CLIP version: ZSCL, arXiv 2303.06628')
    Paper(arxiv='1606.09282', title='A Title', authors='Li and Hoiem', venue='ECCV 2016', year='2016')
    """
    found = QUOTED.match(statement)
    if not found:
        return None
    rest = found["rest"].split(";")[0]
    venue = re.match(r"[A-Z][A-Za-z]* \d{4}", rest)
    year = re.search(r"\b(?:19|20)\d{2}\b", ARXIV.sub("", rest))
    arxiv = ARXIV.search(rest)
    return Paper(
        arxiv[1] if arxiv else "", found["title"], found["authors"], venue[0] if venue else "", year[0] if year else ""
    )


def papers() -> dict[str, Paper]:
    """Key -> paper. Of two statements about one paper the one with the longer title counts."""
    found: dict[str, Paper] = {}
    for statement in statements().values():
        paper = parse(statement)
        if paper and len(paper.title) > len(found[paper.key].title if paper.key in found else ""):
            found[paper.key] = paper
    return dict(sorted(found.items()))


def bibtex(paper: Paper) -> str:
    """An entry that claims no more than is known: a preprint if it has a number, with the venue as a note."""
    authors = re.sub(r" et al\.$", " and others", paper.authors).replace(", ", " and ")
    fields = {
        "title": f"{{{paper.title}}}",
        "author": authors,
        "year": paper.year,
        "eprint": paper.arxiv,
        "archiveprefix": "arXiv" if paper.arxiv else "",
        "note": paper.venue,
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{paper.key},", *lines, "}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["list", "bibtex"])
    if parser.parse_args().what == "bibtex":
        print("```bibtex\n" + "\n\n".join(map(bibtex, papers().values())) + "\n```")
        return
    methods: dict[str, list[str]] = {}
    for name, statement in statements().items():
        methods.setdefault(statement, []).append(name)
    rows = [[TableCell(", ".join(names)), TableCell(statement)] for statement, names in methods.items()]
    print(write([Table(f"{len(rows)} entries", "As bench show METHOD says", ["methods", "paper"], rows, left=2)], "markdown"))


if __name__ == "__main__":
    main()
