"""What the gate says: of every metric of every method how it has changed, and of all of them whether the gate is passed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from bench.reports.formats import points
from bench.results.metrics import METRICS

Verdict = Literal["regression", "missing", "changed", "improvement", "within", "new"]
# those that are counted -> how several of them are called
PLURALS: dict[Verdict, str] = {
    "regression": "regressions", "missing": "missing", "changed": "changed", "improvement": "improvements", "new": "new",
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One metric of one method, then and now; fractions, NaN = no such row."""

    conditions: Mapping[str, str]  # SHARED
    method: str  # with its overrides, as the tables print it
    metric: str
    verdict: Verdict
    before: float
    now: float
    allowed: float = np.nan  # how far it may get worse
    differs: tuple[str, ...] = ()  # in what the run is another one than the baseline's: "epochs 5 -> 3"
    comparable: bool = True  # may its number be held against the baseline's?

    @property
    def failed(self) -> bool:
        return self.verdict in ("regression", "missing") or (self.verdict == "changed" and not self.comparable)

    @property
    def difference(self) -> float:
        return self.now - self.before

    @property
    def sentence(self) -> str:
        title = METRICS[self.metric].title
        if self.verdict == "missing":
            return f"{title} of {self.method} was {points(self.before)}, there is no such result now"
        if self.verdict == "new":
            return f"{title} of {self.method} is {points(self.now)}, the baseline has no such row"
        moved = f"{points(self.before)} -> {points(self.now)} ({points(self.difference, True)})"
        how = f"; changed: {', '.join(self.differs)}" if self.differs else ""
        if not self.comparable:
            return f"{title} of {self.method}: {moved}, which cannot be compared{how}"
        return f"{title} of {self.method}: {moved}, allowed {points(self.allowed)}{how}"


@dataclass(frozen=True)
class Comparison:
    """A baseline against fresh results: what the gate found."""

    baseline: Path
    changes: list[Change]
    notes: list[str]
    versions: list[tuple[str, str, str]] = field(default_factory=list)  # (Python or library, of the baseline, now)

    @property
    def passed(self) -> bool:
        return not any(change.failed for change in self.changes)

    @property
    def counts(self) -> str:
        """How many rows got which verdict, in words."""
        found = [change.verdict for change in self.changes]
        said = []
        for verdict, plural in PLURALS.items():
            count = found.count(verdict)
            said.append(f"{count} {verdict if count == 1 else plural}")
        return f"{', '.join(said)}; {len(found) - found.count('new')} rows of {self.baseline}"

    @property
    def summary(self) -> str:
        return f"gate {'passed' if self.passed else 'FAILED'}: {self.counts}"
