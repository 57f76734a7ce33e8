"""Laws of the grammar's texts, over random claims, in every language it writes."""

import random
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.claims import claims_in
from annotators.grammar import english
from annotators.grammar.english_faults import faults
from annotators.grammar.english_phrases import article
from annotators.grammar.words import table
from annotators.grammar.writing import LANGUAGES, PLAIN, VERSION, write
from schemas.descriptions import CLOSED, FREE, Claim

AGES = (*CLOSED["age"], "adult")
TEXTURES = ("breathy", "hoarse, dark", "rough", "clear", "bright, thin", "warm", "resonant")
# Whatever a person or a model may write there; none of it says anything of a listed attribute.
OWN_WORDS = {
    "texture": (*TEXTURES, "slightly nasal and gravelly", "a velvety rasp", "沙沙的"),
    "accent": ("British", "a slight Irish lilt", "from Glasgow", "Indian English", "四川话"),
    "scenario": (
        "news broadcast",
        "an advert for cars.",
        "on the phone",
        "talking to friends",
        "播客\n",
    ),
}


def claims_of(values: dict[str, str]) -> list[Claim]:
    return [Claim(name=name, value=value) for name, value in values.items()]


closed = st.fixed_dictionaries(
    {},
    optional={
        name: st.sampled_from(AGES if name == "age" else values) for name, values in CLOSED.items()
    },
)
free = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in OWN_WORDS.items()}
)
claim_sets = st.tuples(closed, free).map(lambda both: claims_of(both[0] | both[1])).filter(bool)
languages = st.sampled_from(LANGUAGES)
seeds = st.integers(0, 10**6).map(str)


def plain(claim: Claim) -> bool:
    return claim.name in CLOSED and claim.value in PLAIN


@settings(max_examples=400, deadline=None)
@given(claims=claim_sets, language=languages, seed=seeds)
def test_what_is_written_is_found_again_and_nothing_else(
    claims: list[Claim], language: str, seed: str
) -> None:
    written = write(claims, language, seed)
    told = {claim for claim in written.claims if claim.name in CLOSED}
    assert set(claims_in(written.text, language)) == told
    left_out = set(claims) - set(written.claims)
    assert all(plain(claim) for claim in left_out)
    assert written.claims
    assert [claim for claim in claims if claim in written.claims] == list(written.claims)
    if all(plain(claim) for claim in claims):
        assert not left_out


@settings(max_examples=300, deadline=None)
@given(claims=claim_sets, seed=seeds)
def test_english_is_well_formed(claims: list[Claim], seed: str) -> None:
    text = write(claims, "en", seed).text
    assert re.fullmatch(r"(?:[A-Z][^.]*\.)(?: [A-Z][^.]*\.)*", text), text
    assert not re.search(r"  | ,|,,| \.|,\.|;\.|[(){}\[\]<>_\n]", text), text
    assert not re.search(r"\b(\w+) \1\b", text, re.IGNORECASE), text
    assert not re.search(r"\ba (?=[aeio])", text, re.IGNORECASE), text
    assert not re.search(r"\ban (?=[^aeiou\W])", text, re.IGNORECASE), text
    assert re.fullmatch(r"[A-Za-z ,.;'\u4e00-\u9fff-]+", text), text
    assert 4 <= len(text.split()) <= 45 + 20 * any(claim.name in FREE for claim in claims), text


@settings(max_examples=300, deadline=None)
@given(claims=claim_sets, seed=seeds)
def test_chinese_is_well_formed(claims: list[Claim], seed: str) -> None:
    text = write(claims, "zh", seed).text
    assert re.fullmatch(r"[^。]+。(?:[^。]+。)?(?:[^。]+。)?", text), text
    assert not re.search(r"[，。；、][，。；、]|^[，。；、]|[()（）{}\[\]<>_\n]", text), text
    assert not re.search(r"[\u4e00-\u9fff，。；] | [\u4e00-\u9fff，。；]", text), text
    assert not re.search(r"[,.;:?!]", text), text
    assert not re.search(r"(地[^，。]*){3}|的的|地地|声声|([\u4e00-\u9fff]{2})\2", text), text
    own = sum(len(claim.value) for claim in claims if claim.name in FREE)
    assert 6 <= len(text) <= 90 + own, text


@settings(max_examples=100, deadline=None)
@given(claims=claim_sets, language=languages, seed=seeds, order=st.randoms())
def test_the_same_claims_in_any_order_give_the_same_text(
    claims: list[Claim], language: str, seed: str, order: random.Random
) -> None:
    shuffled = order.sample(claims, len(claims))
    assert write(shuffled, language, seed).text == write(claims, language, seed).text


def test_another_process_writes_the_same() -> None:
    claims = [Claim(name="gender", value="female"), Claim(name="rate", value="fast")]
    code = (
        "from annotators.grammar.writing import write\n"
        "from schemas.descriptions import Claim\n"
        "claims = [Claim(name='gender', value='female'), Claim(name='rate', value='fast')]\n"
        "import sys\n"
        "sys.stdout.buffer.write(write(claims, 'zh', 'one').text.encode())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode() == write(claims, "zh", "one").text


VARIED = [
    {"gender": "female", "age": "young adult", "rate": "fast", "pitch": "high"},
    {"gender": "male", "emotion": "sad", "pauses": "many"},
    {"rate": "slow", "emotion": "calm"},
    {"pitch": "low", "texture": "hoarse"},
    {"gender": "female", "age": "senior"},
    {"gender": "male", "age": "child", "energy": "loud", "emotion": "excited", "pitch": "high"},
]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("values", VARIED)
def test_one_voice_is_described_in_many_ways(values: dict[str, str], language: str) -> None:
    claims = claims_of(values)
    assert len({write(claims, language, str(seed)).text for seed in range(50)}) >= 20


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_beginning_wears_out(language: str) -> None:
    chance = random.Random(5)
    beginnings: Counter[str] = Counter()
    for seed in range(500):
        values = {
            name: chance.choice(known) for name, known in CLOSED.items() if chance.random() < 0.6
        }
        text = write(claims_of(values or {"gender": "male"}), language, str(seed)).text
        beginnings[" ".join(text.split()[:4]) if language == "en" else text[:6]] += 1
    assert beginnings.most_common(1)[0][1] <= 25


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", list(CLOSED))
def test_every_value_can_be_told_alone(name: str, language: str) -> None:
    for value in AGES if name == "age" else CLOSED[name]:
        claim = Claim(name=name, value=value)
        for seed in range(30):
            written = write([claim], language, str(seed))
            assert written.claims == (claim,)
            assert claims_in(written.text, language) == (claim,), written.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_plain_values_are_mostly_left_out_and_sometimes_told(language: str) -> None:
    claims = claims_of({"gender": "female", "rate": "moderate", "emotion": "angry"})
    told = sum(len(write(claims, language, str(seed)).claims) == 3 for seed in range(200))
    assert 5 <= told <= 60


def test_known_textures_are_translated() -> None:
    claims = claims_of({"texture": "breathy, dark"})
    for seed in range(20):
        assert not re.search("[a-z]", write(claims, "zh", str(seed)).text)


@settings(deadline=None)
@given(value=st.text(min_size=1, max_size=60), name=st.sampled_from(FREE), language=languages)
def test_own_words_bring_no_lines_and_no_brackets(value: str, name: str, language: str) -> None:
    claims = [Claim(name=name, value=value), Claim(name="gender", value="male")]
    try:
        text = write(claims, language, "1").text
    except ValueError:
        assert not re.search(r"[A-Za-z0-9\u4e00-\u9fff]", value)
    else:
        assert not re.search(r"[\n\r()（）\[\]{}<>]", text)


@pytest.mark.parametrize(
    ("claims", "language", "says"),
    [
        ([], "en", "nothing is claimed"),
        ([Claim(name="pitch", value="low")], "fr", "no grammar for 'fr'"),
        ([Claim(name="pitch", value="lowish")], "en", "pitch: 'lowish'"),
        ([Claim(name="mood", value="low")], "en", "mood"),
        ([Claim(name="pitch", value="low"), Claim(name="pitch", value="high")], "en", "twice"),
        ([Claim(name="texture", value=" . ")], "en", "texture is empty"),
    ],
)
def test_what_cannot_be_written_is_refused(claims: list[Claim], language: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        write(claims, language, "1")


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("old man", "an old man"),
        ("unusually deep voice", "an unusually deep voice"),
        ("unique voice", "a unique voice"),
        ("European accent", "a European accent"),
        ("hour", "an hour"),
        ("hoarse voice", "a hoarse voice"),
        ("NPR interview", "an NPR interview"),
        ("BBC report", "a BBC report"),
        ("80-year-old", "an 80-year-old"),
        ("one-note tone", "a one-note tone"),
        ("young man", "a young man"),
    ],
)
def test_articles_follow_the_sound(phrase: str, expected: str) -> None:
    assert article(phrase) == expected


def test_the_version_is_recorded() -> None:
    assert VERSION


@pytest.mark.parametrize(
    ("good", "clumsy"),
    [
        ("A woman speaks slowly in a low voice.", "A woman speaks slow and low and soft and sad."),
        ("A man talks fast.", "A man talks fast with haste with pauses with joy."),
        ("Her voice is deep and clear.", "Her voice is a deep voice, a clear voice."),
        ("A young man speaks quickly.", "A quick man speaks quickly."),
        ("She speaks softly.", "She speaks."),
        ("She speaks softly.", " ".join(["She speaks softly and so on"] * 12) + "."),
    ],
)
def test_what_a_reader_stumbles_over_counts(good: str, clumsy: str) -> None:
    assert faults(good) < faults(clumsy)


def test_of_several_drafts_the_least_clumsy_is_written() -> None:
    chance = random.Random(0)
    written, at_once = [], []
    for seed in range(200):
        names = [
            "gender",
            "age",
            *chance.sample(["rate", "energy", "pauses", "emotion", "pitch"], 4),
        ]
        said = {name: chance.choice(CLOSED[name]) for name in names}
        text = write(claims_of(said), "en", str(seed)).text
        written.append(faults(text))
        assert 4 <= len(text.split()) <= 45
        draft = english.draft(said, random.Random(seed), table("en"))
        if draft is not None:
            at_once.append(faults(draft))
    assert sum(written) / len(written) < 0.25 * sum(at_once) / len(at_once)
