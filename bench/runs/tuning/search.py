"""One search: a method's settings on the validation part of one protocol."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.learning.setting_values import as_text
from bench.learning.settings import Search as Space
from bench.learning.settings import from_plain
from bench.results.metrics import METRICS
from bench.runs import plan
from bench.runs.assignments import Assignment
from bench.runs.facts import Facts
from bench.runs.request import Request
from bench.runs.run import Run
from bench.runs.tuning import proposals, trials
from bench.runs.tuning.trials import FOLDER, Trial
from bench.streams.names import as_published
from bench.system import named_files

VALIDATION = "validation=20%"  # of a protocol that has no validation part


def cut(facts: Facts, protocol: str, tasks: int | None) -> str:
    """The name of the stream that is searched on: its validation part, of its first tasks alone if so many are asked for."""
    options = facts.protocol(protocol).name.split("+")[1:]
    added = [f"tasks={tasks}"] if tasks else []
    added += [] if any(option.startswith("validation=") for option in options) else [VALIDATION]
    name = "+".join([protocol, *added])
    facts.protocol(name)
    return name


@dataclass
class Search:
    """The trials of one method on one protocol, and how far they are."""

    request: Request  # of one method and one protocol, that of the cut stream; its `set` is what all trials have
    metric: str
    about: dict[str, Any]  # all that decides which trials there are and what they score
    space: Mapping[str, Space]
    present: Mapping[str, Any]  # all hyper-parameters at present
    written: Sequence[str]  # those that a recipe has to hold, beside the searched ones
    protocol: str  # canonical name of the cut stream
    trials: list[Trial] = field(default_factory=list)
    stopped: str = ""  # why it cannot go on in this command; a repeated one may

    @property
    def method(self) -> str:
        return self.request.methods[0]

    @property
    def published(self) -> str:
        """The stream that the recipe is for."""
        return as_published(self.protocol)

    @property
    def path(self) -> Path:
        """Of the file that keeps it."""
        return self.request.out / FOLDER / self.published / f"{self.method}.json"

    @property
    def recipe_path(self) -> Path:
        return self.path.with_suffix(".toml")

    @property
    def lock(self) -> Path:
        return self.request.out / ".locks" / f"tune-{self.published}-{self.method}.lock"

    def begin(self) -> None:
        """Take up what is kept of it."""
        self.trials = trials.read(self.path, self.about)

    def keep(self) -> None:
        trials.write(self.path, self.about, self.trials)

    def propose(self, number: int, limit: int) -> list[Trial]:
        """The trials of a round, those kept first; at most `limit` trials in all."""
        first = number * proposals.ROUND
        wanted = range(first, min(first + proposals.ROUND, limit))
        if first <= len(self.trials) < wanted.stop:  # with fewer than `first` the space has no more
            known = [(trial.values, trial.score) for trial in self.trials[:first]]
            higher = METRICS[self.metric].higher_is_better
            present = {name: self.present[name] for name in self.space}
            at_present = [present] if number == 0 else []
            past = known + [(values, None) for values in at_present]
            found = [*at_present, *proposals.propose(self.space, past, number, f"{self.method} {self.published}", higher)]
            for place in range(len(self.trials) - first, len(wanted)):
                if place < len(found):
                    self.trials.append(Trial(first + place, dict(found[place])))
        return self.trials[wanted.start : wanted.stop]

    def runs_of(self, trial: Trial, facts: Facts) -> list[Run]:
        """The runs of a trial, one for every seed and order; none where the method refuses its values, which then has failed."""
        where = f"trial {trial.number} of {self.method}"
        changed = {name: value for name, value in trial.values.items() if value != self.present[name]}
        more = tuple(Assignment(self.method, name, as_text(value, where), where) for name, value in changed.items())
        try:
            runs, _ = plan.build(replace(self.request, set=self.request.set + more), facts)
        except BenchError as error:
            if trial.number == 0:
                raise
            trial.failed(str(error))
            return []
        trial.runs = [run.run_id for run in runs]
        return runs


def begun(request: Request, metric: str, given_space: Mapping[str, Any], facts: Facts) -> Search | None:
    """A search that is ready for its first round, or None where there is nothing to tune.

    request: of one method, with the cut protocol, device and precision as the machine has them. given_space: of a search file,
    hyper-parameter -> plain form; empty: the method's own.
    """
    method, protocol = request.methods[0], facts.protocol(request.protocols[0])
    changes = tuple(one.change for one in request.set if one.method == method)
    asked = facts.search(method, protocol.name, changes, given_space)
    space = {name: from_plain(plain) for name, plain in asked.space.items()}
    if not space:
        return None
    chosen = facts.settings(method, protocol.name, changes)
    about = {
        "method": method,
        "method_version": facts.method(method).version,
        "protocol": protocol.name,
        "protocol_version": protocol.version,
        "metric": metric,
        "seeds": list(request.seeds),
        "order_seeds": [0] if protocol.fixed_order else list(request.order_seeds),
        "space": dict(asked.space),
        "present": named_files.by_content(chosen.settings),
        "backbone": request.backbone,
        "weights": facts.weights(request.backbone, request.pretrained),
        "device": request.device.split(":")[0],
        "precision": request.precision,
        "data": request.data,
        "limit_train": request.limit_train,
        "limit_test": request.limit_test,
        "sampler": proposals.SAMPLER,
    }
    if protocol.fixed_order:
        request = replace(request, order_seeds=(0,))
    about = json.loads(json.dumps(about))
    return Search(request, metric, about, space, asked.settings, asked.written, protocol.name)
