"""What comes out of a search: the best of its trials, as a recipe that says what it cost."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.learning import recipes
from bench.results.metrics import METRICS
from bench.runs.tuning.search import Search
from bench.runs.tuning.trials import Trial, digest
from bench.system.claims import waiting
from bench.system.files import write_atomically
from bench.system.version import VERSION


@dataclass(frozen=True)
class Result:
    """How a search has ended."""

    search: Search
    chosen: Trial | None  # None: no trial could be scored
    failed: int
    over_time: int  # scored, but longer than a run may take

    @property
    def present(self) -> Trial:
        return self.search.trials[0]

    @property
    def settings(self) -> dict[str, Any]:
        """What the recipe holds: the searched hyper-parameters, and whatever else is not at its default."""
        assert self.chosen is not None
        present = {name: self.search.present[name] for name in (*self.search.written, *self.search.space)}
        return dict(sorted((present | self.chosen.values).items()))

    @property
    def changes(self) -> dict[str, Any]:
        """The searched values that are others than at present."""
        values = self.chosen.values if self.chosen else {}
        return {name: value for name, value in values.items() if value != self.search.present[name]}

    @property
    def seconds(self) -> float:
        return round(sum(trial.seconds_in_all for trial in self.search.trials), 1)


def of(search: Search, longest: float | None) -> Result:
    """The trial with the best score. The present recipe wins a draw, and is never left out for its time: so the new one is not
    worse on validation. longest: seconds that a run of any other trial may take; None: as long as it likes.
    """
    scored = [trial for trial in search.trials if trial.state == "scored"]
    in_time = [trial for trial in scored if trial.number == 0 or longest is None or (trial.seconds or 0.0) <= longest]
    sign = 1 if METRICS[search.metric].higher_is_better else -1
    chosen = max(in_time, key=lambda trial: (sign * (trial.score or 0.0), -trial.number), default=None)
    failed = sum(trial.state == "failed" for trial in search.trials)
    return Result(search, chosen, failed, len(scored) - len(in_time))


def write(result: Result, longest: float | None) -> None:
    """The recipe, and the file with all recipes of its folder."""
    search, chosen = result.search, result.chosen
    if chosen is None:
        return
    about, present = search.about, result.present
    tuned = {
        "on": search.protocol,
        "metric": search.metric,
        "score": _percent(chosen),
        "score_at_present": _percent(present) if present.state == "scored" else "failed",
        "trial": chosen.number,
        "trials": len(search.trials),
        "failed": result.failed,
        **({"max_seconds": longest, "over_max_seconds": result.over_time} if longest is not None else {}),
        "seeds": about["seeds"],
        "order_seeds": about["order_seeds"],
        "seconds": result.seconds,
        "seconds_of_a_run": round(chosen.seconds or 0.0, 1),
        "backbone": f"{about['backbone']} ({about['weights'][:40]})",
        "device": about["device"],
        **{key: about[key] for key in ("limit_train", "limit_test") if about[key] is not None},
        **({"data": about["data"]} if about["data"] != "real" else {}),
        "searched": list(search.space),
        "study": digest(about, search.trials),
        "bench": VERSION,
    }
    table = {
        "method": search.method,
        "method_version": about["method_version"],
        "protocol": search.published,
        "settings": result.settings,
        "tuned": tuned,
    }
    write_atomically(search.recipe_path, recipes.to_toml([(table, "")]))
    folder = search.recipe_path.parent
    with waiting(search.request.out / ".locks" / f"tuned-{folder.name}.lock"):
        write_atomically(together(folder), recipes.joined(sorted(folder.glob("*.toml"))))


def together(folder: Path) -> Path:
    """The file with all recipes of a folder."""
    return folder.with_name(f"{folder.name}.toml")


def written(results: Iterable[Result]) -> list[Path]:
    """The folders that the recipes of these searches lie in."""
    return list(dict.fromkeys(result.search.recipe_path.parent for result in results if result.chosen))


def _percent(trial: Trial) -> float:
    return round(100 * (trial.score or 0.0), 4)
