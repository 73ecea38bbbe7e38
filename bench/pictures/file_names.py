"""Names of files and anchors made from names of protocols and methods, which may hold anything."""

import re

from bench.results.groups import Group
from bench.system.files import sha256


def stem(group: Group) -> str:
    """How the file names of a group's pictures begin.

    >>> stem(Group({"protocol": "mini60-6x10"}, [], [], "limits=train=5"))
    'mini60-6x10_limits=train=5'
    """
    return slug(group.protocol) + (f"_{slug(group.apart)}" if group.apart else "")


def slug(text: str) -> str:
    """A text as a part of a file name; where characters are lost, a digest keeps different texts apart.

    >>> slug("coop (epochs=3;rate=-1)"), slug("../<b>")
    ('coop-epochs=3,rate=-1', 'b-9f46ae')
    """
    readable = text.replace(" (", "-").replace(")", "").replace(";", ",")
    safe = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", readable).strip("-.")
    return safe if safe == readable else f"{safe}-{sha256(text.encode())[:6]}".lstrip("-")
