"""Which settings a search tries next: Optuna's tree-structured Parzen estimator, asked so that it can be asked again.

What is feared is a search that goes another way when it is repeated: after a kill, with other workers, on another machine. So
trials are proposed in rounds of a fixed number, whatever --jobs is. A round knows the results of all earlier rounds and none of
its own, is drawn with a seed made of its number, by a sampler that is new for it and has been told the history in the order of
the trials' numbers. Drawn numbers are rounded to three digits, so that no machine's last bit makes another trial. How long a
trial took is never told to it.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.learning.settings import Choices, Search
from bench.system.seeds import stable_seed

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

ROUND = 4  # trials that are proposed together
AT_RANDOM = 4  # scored trials before the estimator is asked; until then they are drawn at random
PATIENCE = 25  # draws in the place of one that has been tried already
SAMPLER = "optuna-tpe-1"  # changed when this module proposes other trials

Values = Mapping[str, Any]
# a trial that is over: its values, and its score, None where it failed
Past = tuple[Values, float | None]


def propose(
    space: Mapping[str, Search], past: Sequence[Past], number: int, key: str, higher_is_better: bool
) -> list[dict[str, Any]]:
    """The trials of round `number`, after all trials of earlier rounds; fewer where the space holds no others.

    key: what is searched, in words; another search draws other numbers.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that options are experimental, that a step does not reach the end of its range
        sampler = optuna.samplers.TPESampler(
            seed=stable_seed("bench tune", key, number) % 2**32, n_startup_trials=AT_RANDOM, multivariate=True, constant_liar=True
        )
        study = optuna.create_study(sampler=sampler, direction="maximize" if higher_is_better else "minimize")
        distributions = {name: _distribution(search) for name, search in space.items()}
        for values, score in past:
            if all(search.contains(values[name]) for name, search in space.items()):
                state = optuna.trial.TrialState.PRUNED if score is None else optuna.trial.TrialState.COMPLETE
                coded = {name: _coded(search, values[name]) for name, search in space.items()}
                study.add_trial(
                    optuna.create_trial(state=state, value=score, params=coded, distributions=distributions)
                )
        known, found = [dict(values) for values, _ in past], []
        for _ in range(ROUND):
            for _ in range(PATIENCE):
                trial = study.ask(distributions)
                values = {name: _decoded(search, trial.params[name]) for name, search in space.items()}
                if values not in known:
                    found.append(values)
                    known.append(values)
                    break
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return found


def _distribution(search: Search) -> "BaseDistribution":
    from optuna import distributions

    if isinstance(search, Choices):
        return distributions.CategoricalDistribution(tuple(range(len(search.choices))))
    if search.whole:
        step = 1 if search.step is None else int(search.step)
        return distributions.IntDistribution(int(search.low), int(search.high), log=search.log, step=step)
    return distributions.FloatDistribution(search.low, search.high, log=search.log, step=search.step)


def _coded(search: Search, value: Any) -> Any:
    """A value as its distribution has it: a choice is its place among the choices."""
    return search.place_of(value) if isinstance(search, Choices) else value


def _decoded(search: Search, value: Any) -> Any:
    if isinstance(search, Choices):
        found = search.choices[value]
        return list(found) if isinstance(found, tuple) else found
    if search.whole:
        return value
    if search.step is not None:
        return float(f"{value:.9g}")  # 0.7, where adding steps makes it 0.7000000000000001
    return min(max(float(f"{value:.3g}"), float(search.low)), float(search.high))
