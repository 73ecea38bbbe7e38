"""What an examination has found: lines to print, and how many of them say that something is wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Finding:
    """What was found about one thing, line by line."""

    lines: list[str] = field(default_factory=list)
    wrong: int = 0  # and still so

    def complain(self, text: str) -> None:
        self.lines.append(f"WRONG  {text}")
        self.wrong += 1


@dataclass(kw_only=True)
class Diagnosis(Finding):
    """What was found about many things, in sections; `repair` mends what can be mended without loss."""

    repair: bool = False
    mended: int = 0
    mendable: int = 0

    def section(self, title: str) -> None:
        self.lines.append(title)

    def fine(self, text: str) -> None:
        self.lines.append(f"  ok      {text}")

    def note(self, text: str) -> None:
        self.lines.append(f"  note    {text}")

    def complain(self, text: str) -> None:
        self.lines.append(f"  WRONG   {text}")
        self.wrong += 1

    def mend(self, text: str, remedy: str, action: Callable[[], object]) -> None:
        """Something wrong that `action` puts right; the remedy says what that does ("removed", ...)."""
        if self.repair:
            action()
            self.lines.append(f"  mended  {text}: {remedy}")
            self.mended += 1
        else:
            self.complain(f"{text} (--repair: {remedy})")
            self.mendable += 1

    @property
    def verdict(self) -> str:
        parts = [f"{self.wrong} wrong" if self.wrong else "nothing is wrong"]
        if self.mended:
            parts.append(f"{self.mended} mended")
        if self.mendable:
            parts.append(f"--repair mends {self.mendable}")
        return ", ".join(parts)
