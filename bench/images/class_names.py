"""Class names as CLIP's tokenizer sees them: which of them make the same prompt."""

import html
from collections.abc import Sequence
from functools import lru_cache

SMALL = 4096  # data sets whose names are kept


def as_tokenized(name: str) -> str:
    """The name as the tokenizer cuts it: repaired characters, no HTML, lower case, a space between its pieces.

    Pieces are runs of letters, single digits and runs of other signs, whether there is a space between them or not.

    >>> as_tokenized("Apple  &amp; Pear "), as_tokenized("route66"), as_tokenized("Route 66"), as_tokenized("t-shirt")
    ('apple & pear', 'route 6 6', 'route 6 6', 't - shirt')
    """
    import ftfy
    import regex

    cleaned = " ".join(html.unescape(html.unescape(ftfy.fix_text(name))).split()).lower()
    return " ".join(regex.findall(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", cleaned))


@lru_cache(maxsize=SMALL)
def same_prompts(names: tuple[str, ...]) -> list[tuple[int, int]]:
    """Pairs of places whose names make the same prompt, in order.

    >>> same_prompts(("red apple", "pear", "Red  Apple"))
    [(0, 2)]
    """
    first: dict[str, int] = {}
    found = []
    for place, name in enumerate(names):
        known = first.setdefault(as_tokenized(name), place)
        if known != place:
            found.append((known, place))
    return found


def unexpected(names: Sequence[str], expected: Sequence[str]) -> list[tuple[int, int]]:
    """The same without names that the official list of a data set is known to have twice."""
    allowed = {as_tokenized(name) for name in expected}
    return [pair for pair in same_prompts(tuple(names)) if as_tokenized(names[pair[0]]) not in allowed]
