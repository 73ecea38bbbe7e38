"""Class names as CLIP's tokenizer sees them: which of them make the same prompt."""

import html
from collections.abc import Sequence
from functools import lru_cache

SMALL = 4096  # data sets whose names are kept


def as_tokenized(name: str) -> str:
    """The name after the tokenizer's cleaning: repaired characters, no HTML, one space between words, lower case.

    >>> as_tokenized("Apple  &amp; Pear "), as_tokenized("apple & pear")
    ('apple & pear', 'apple & pear')
    """
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(name))).split()).lower()


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
