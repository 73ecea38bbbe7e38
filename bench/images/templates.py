"""Prompt templates that a user writes: what one has to look like."""

from typing import Any

from bench.errors import printable


def complaint(template: Any) -> str:
    """What is wrong with a template, as the end of a sentence; empty if nothing is.

    >>> complaint("a blurry photo of a {}."), complaint("a photo"), complaint("{} {name}")
    ('', "'a photo': one {} is wanted, where the class's name goes", "'{} {name}': no braces but {} may stand in a template")
    """
    if not isinstance(template, str) or not template.strip() or printable(template) != template:
        return f"{template!r}: a text in one line is wanted, without control characters or spaces at its ends"
    if template.count("{}") != 1:
        return f"{template!r}: one {{}} is wanted, where the class's name goes"
    if set("{}") & set(template.replace("{}", "")):
        return f"{template!r}: no braces but {{}} may stand in a template"
    return ""
