"""Short digests of plain data: of what a run is asked for, of the images or the words of a stream."""

import hashlib
import json
from typing import Any


def of_plain_data(facts: Any) -> str:
    """16 hex digits for what JSON can hold, whatever the order of its keys.

    >>> of_plain_data({"b": [1, 2], "a": None}) == of_plain_data({"a": None, "b": (1, 2)})
    True
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
