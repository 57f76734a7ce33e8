"""The words that say what a text is about, without those that every text has.

Stop words are those of the Snowball project, from the package stop-words (22 languages; its later
versions list a thousand words of English, "number" and "call" among them). In other languages every
word counts. Where no spaces part words, pairs of neighbouring characters stand for them.
"""

from functools import lru_cache
from itertools import pairwise

from stop_words import StopWordError, get_stop_words

from annotators.text import WITHOUT_SPACES, plain_tokens

_CALLED = {"cs": "cz", "no": "nb", "nn": "nb"}
"""Languages that have their list under another code."""


def content_words(text: str, language: str | None) -> frozenset[str]:
    """Content words in lower case; all words of a text that has nothing but stop words."""
    base = (language or "").partition("-")[0]
    tokens = plain_tokens(text, base)
    if base in WITHOUT_SPACES:
        pairs = pairwise(tokens)
        return frozenset(map("".join, pairs)) or frozenset(tokens)
    return frozenset(tokens) - _stop_words(base) or frozenset(tokens)


@lru_cache(maxsize=64)
def _stop_words(language: str) -> frozenset[str]:
    try:
        listed = get_stop_words(_CALLED.get(language, language))
    except StopWordError:
        return frozenset()
    # An entry of several words is a phrase, whose words may well say something elsewhere.
    parts = (plain_tokens(entry, language) for entry in listed)
    return frozenset(part[0] for part in parts if len(part) == 1)
