"""Under which conditions runs may be compared, and how these and a method are said.

Runs that differ in anything that voids a comparison (protocol version, backbone, weights, templates, exemplars, image
limits) never meet, whatever is made of them: a table, a picture, a test or a ranking.
"""

from collections.abc import Mapping, Sequence

from bench.results.records import CONDITIONS, restrictions

SHARED = [name for name in CONDITIONS if name not in ("method", "overrides")]  # runs that differ in one of these never meet
SEEDS = ["order_seed", "seed"]
ZERO_SHOT = "zero-shot"  # the method that all others are read against: first in tables, grey in pictures


def label(method: str, overrides: str) -> str:
    """A method as the tables print it.

    >>> label("coop", ""), label("coop", "epochs=3")
    ('coop', 'coop (epochs=3)')
    """
    return f"{method} ({overrides})" if overrides else method


def heading(conditions: Mapping[str, str], also: Sequence[str] = ()) -> str:
    """What the runs of one table have in common, as its caption says it; `also`: further conditions to be said."""
    backbone, weights = conditions["backbone"], conditions["pretrained"]
    parts = [
        f"{conditions['protocol']} (version {conditions['protocol_version']}, {conditions['scenario']})",
        f"backbone {backbone}" + (f" with weights {weights}" if weights != backbone else ""),
        *[f"{name} {conditions[name]}" for name in also],
    ]
    if conditions["limits"] not in ("", "nan"):
        parts.append(restrictions(conditions["limits"]))
    return ", ".join(parts)
