"""`bench check`: from a name to the contract of what it names, to a line for every promise."""

import click

from bench.errors import unknown_name

WORDS = {"method": "method", "dataset": "data set", "protocol": "protocol"}


def run(name: str, folders) -> int:
    """Check everything of that name and return the exit code: 1 if a promise is broken."""
    kinds = _kinds(name)

    from bench.checks import dataset, method, protocol

    contracts = {"method": method, "dataset": dataset, "protocol": protocol}
    if len(kinds) > 1:
        click.echo(f"{name} names a {' and a '.join(WORDS[kind] for kind in kinds)}: all are checked")
    broken = 0
    for kind in kinds:
        results = contracts[kind].check(name, folders)
        for result in results:
            click.echo(f"{'pass' if result.passed else 'FAIL'}  {result.name}" + (f": {result.detail}" if result.detail else ""))
        failed = sum(not result.passed for result in results)
        title = f"{WORDS[kind]} {name}" if len(kinds) > 1 else name
        click.echo(f"{title}: {len(results) - failed} passed, {failed} failed")
        broken += failed
    return 1 if broken else 0


def _kinds(name: str) -> list[str]:
    """What the name is the name of; a protocol may be made from its name."""
    from bench.streams import names
    from bench.system import registry

    registered = [kind for kind in WORDS if name in registry.names(kind)]
    if registered:
        return registered
    if names.looks_possible(name):
        names.find(name)  # raises if there is no such protocol
        return ["protocol"]
    raise unknown_name("name", name, [known for kind in WORDS for known in registry.names(kind)])
