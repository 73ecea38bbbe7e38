"""What a shell offers when a name is begun and Tab is pressed: click's own completion (docs/command-line.md turns it on).

Only registered names are offered: they are known without importing a plug-in, so that the shell answers at once.
"""

from collections.abc import Callable, Iterable, Sequence

from click import Context, Parameter
from click.shell_completion import CompletionItem

from bench.system import registry

Complete = Callable[[Context, Parameter, str], list[CompletionItem]]


def one_of(*kinds: str, also: Callable[[], Iterable[str]] = tuple) -> Complete:
    """A name of one of these kinds, or of `also`."""

    def complete(context: Context, parameter: Parameter, begun: str) -> list[CompletionItem]:
        known = [*(name for kind in kinds for name in registry.names(kind)), *also()]
        return _offered(known, "", begun)

    return complete


def several_of(kind: str, *others: str) -> Complete:
    """Names separated by commas, of which the last one is begun; none is offered twice. others: words that may stand there."""

    def complete(context: Context, parameter: Parameter, begun: str) -> list[CompletionItem]:
        before, comma, last = begun.rpartition(",")
        given = before.split(",")
        return _offered([name for name in [*registry.names(kind), *others] if name not in given], before + comma, last)

    return complete


def _offered(names: Sequence[str], before: str, begun: str) -> list[CompletionItem]:
    return [CompletionItem(before + name) for name in dict.fromkeys(names) if name.startswith(begun)]
