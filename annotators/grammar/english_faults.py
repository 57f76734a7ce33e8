"""How much of an English description a reader would stumble over."""

import re

# Words that may well stand twice.
_COMMON = {"with", "that", "this", "very", "their", "from", "there", "while", "voice"}


def faults(text: str) -> int:
    """How much of a text a reader would stumble over."""
    count = 0
    stems: dict[str, int] = {}
    for sentence in re.split(r"[.;] ?", text):
        plain = re.findall(r"[a-z'-]+", sentence.casefold())
        count += max(0, plain.count("and") - 2) + max(0, plain.count("voice") - 1)
        count += max(0, plain.count("with") - 1) + max(0, sentence.count(",") - 3)
        # A row of phrases: in a deep voice in a calm tone at a crawl.
        count += max(0, len(re.findall(r"\bin (?:an?|raised|little|no)\b", sentence)) - 1)
        count += max(0, len(re.findall(r"\b(?:in an?|at|on|with|without|above)\b", sentence)) - 2)
        for word in set(plain):
            if len(word) > 3 and word not in _COMMON:
                count += max(0, plain.count(word) - 1)
    for word in re.findall(r"[a-z]+", text.casefold()):
        if len(word) > 3 and word not in _COMMON:
            stems[word[:5]] = stems.get(word[:5], 0) + 1
    count += sum(number - 1 for number in stems.values())
    strong = re.findall(r"\b(?:very|extremely|remarkably|unusually|tremendous)\b", text)
    count += max(0, len(strong) - 1 - len(text) // 120)
    count += 3 * (len(re.findall(r"\band \w+ and\b", text)))
    num_words = len(text.split())
    return count + 10 * max(0, num_words - 45) + 10 * max(0, 4 - num_words)
