"""Seeds that depend on what they are for: the same on every machine and in every process, and found without torch."""

import hashlib


def stable_seed(*key: object) -> int:
    """A 63-bit seed from any printable key.

    >>> stable_seed("class order", "mini60", 0)
    8434381002644103779
    """
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
