"""How often a step of training may make a GPU wait for the host, or the host for a GPU.

An ordinary step waits for nothing and uploads what its batch is: its rows, labels and perhaps draws. Methods that need more, by
what they are, stand here with their number; whoever mends one lowers it.
"""

from collections.abc import Iterable

from tests.stand_in_device.steps import Phase

UPLOADS = 3
# reads and results whose size the host must know
MORE_WAITS: dict[str, int] = {}
MORE_UPLOADS: dict[str, int] = {}


def beyond_limits(name: str, phases: Iterable[Phase]) -> list[str]:
    """What in the ordinary steps of a method's phases is beyond its limits, in words."""
    waits, uploads = MORE_WAITS.get(name, 0), MORE_UPLOADS.get(name, UPLOADS)
    found = []
    for phase in phases:
        for kinds, limit, what in ((("read", "shape"), waits, "waits"), (("upload",), uploads, "uploads")):
            if (count := phase.usual(*kinds)) > limit:
                found.append(f"{phase.name or 'training'}: {count} {what} in a step, at most {limit} may be: {phase.last}")
    return found
