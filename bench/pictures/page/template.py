"""What all pages have in common: the template engine, the style, and the script with the policy that lets no other one run.

A page loads nothing: styles, the script and all pictures are inside it, and its content security policy forbids everything
else, even scripts other than its own. Whatever comes from results is escaped by the template engine. Without JavaScript
everything is shown; the script only hides, sorts and says what a page holds already.
"""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from bench.reports.formats import INDENT
from bench.system.version import VERSION

PACKAGE = "bench.pictures.page"


def fill(name: str, **content: Any) -> str:
    """A template of this package with this content."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(PACKAGE, "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["short"] = short
    script = files(PACKAGE).joinpath("page.js").read_text(encoding="utf-8")
    style = files(PACKAGE).joinpath("page.css").read_text(encoding="utf-8")
    return environment.get_template(name).render(
        indent=INDENT,
        version=VERSION,
        script=script,
        style=style,
        # a policy that names the script by its hash: nothing else can run, whatever stands in the results
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **content,
    )


def short(number: float) -> str:
    """A coordinate with as many digits as can be seen.

    >>> short(3.0), short(2.449)
    ('3', '2.4')
    """
    return f"{number:.1f}".removesuffix(".0")
