"""What descriptions say, by hand: the phrases here are nobody's but the tests'."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.claims import claims_in, lexicon_of
from schemas.descriptions import CLOSED, Claim

PHRASES = [
    ("en", "A woman speaks.", "gender: female"),
    ("en", "The lady's voice trembles.", "gender: female"),
    ("en", "She says it twice.", "gender: female"),
    ("en", "A little girl chatters.", "gender: female, age: child"),
    ("en", "A boy reads aloud.", "gender: male, age: child"),
    ("en", "A girl in her teens", "gender: female, age: teenager"),
    ("en", "a teenage boy", "gender: male, age: teenager"),
    ("en", "An old man in his sixties", "gender: male, age: senior"),
    ("en", "a woman in her early thirties", "gender: female, age: young adult"),
    ("en", "a woman in her late thirties", "gender: female, age: middle-aged"),
    ("en", "A 45-year-old man", "gender: male, age: middle-aged"),
    ("en", "a 7 year old", "age: child"),
    ("en", "An elderly lady", "gender: female, age: senior"),
    ("en", "Young female voice", "gender: female, age: young adult"),
    ("en", "a young, confident woman", "gender: female, age: young adult"),
    ("en", "The story is old and the hall is new.", ""),
    ("en", "A middle aged speaker", "age: middle-aged"),
    ("en", "A grown man", "gender: male, age: adult"),
    ("en", "a young adult", "age: young adult"),
    ("en", "She talks to a little boy.", "gender: female"),
    ("en", "A man talking to his mother", "gender: male"),
    ("en", "Her voice is not angry.", "gender: female"),
    ("en", "without anger or haste", ""),
    ("en", "There is no sadness in the voice", ""),
    ("en", "She isn't very loud", "gender: female"),
    ("en", "never loud, but always fast", "rate: fast"),
    ("en", "not only angry but loud", "emotion: angry, energy: loud"),
    ("en", "furious, almost enraged", "emotion: angry"),
    ("en", "unhappy", "emotion: sad"),
    ("en", "fearless", ""),
    ("en", "joyless", "emotion: sad"),
    ("en", "He whispers", "gender: male, energy: very soft"),
    ("en", "barely above a whisper", "energy: very soft"),
    ("en", "speaks softly and rapidly", "energy: soft, rate: fast"),
    ("en", "a soft accent", ""),
    ("en", "low-pitched", "pitch: low"),
    ("en", "in a low, hoarse voice", "pitch: low"),
    ("en", "in a very low and warm voice", "pitch: very low"),
    ("en", "keeps her voice low", "gender: female, energy: soft"),
    ("en", "in a low voice, almost a whisper", "energy: soft, energy: very soft"),
    ("en", "at low volume", "energy: soft"),
    ("en", "low energy", ""),
    ("en", "takes a deep breath", ""),
    ("en", "a deep, resonant voice", "pitch: low"),
    ("en", "His voice is hoarse and deep.", "gender: male, pitch: low"),
    ("en", "The voice, high and thin, carries far", "pitch: high"),
    ("en", "a high-quality recording", ""),
    ("en", "extremely fast, shouting", "rate: very fast, energy: very loud"),
    ("en", "in no hurry", "rate: slow"),
    ("en", "takes his time", "gender: male, rate: slow"),
    ("en", "at breakneck speed", "rate: very fast"),
    ("en", "at a moderate pace", "rate: moderate"),
    ("en", "in a monotone", "pitch_range: monotone"),
    ("en", "monotonous and flat", "pitch_range: monotone, pitch_range: flat"),
    ("en", "with very lively intonation", "pitch_range: very lively"),
    ("en", "a lively conversation", ""),
    ("en", "with hardly any pauses", "pauses: hardly any"),
    ("en", "with few pauses", "pauses: few"),
    ("en", "pausing often", "pauses: many"),
    ("en", "without emphasis", "emphasis: none"),
    ("en", "with very strong emphasis", "emphasis: very strong"),
    ("en", "calm at first, then excited", "emotion: calm, emotion: excited"),
    ("en", "in high spirits", "emotion: happy"),
    ("en", "neutral accent", ""),
    ("en", "matter-of-fact", "emotion: neutral"),
    ("en", "Quietly, but with clear emphasis", "energy: soft, emphasis: strong"),
    ("en", "unusually low for a woman", "gender: female"),
    ("en", "children are heard in the background", ""),
    ("zh", "一位年轻女性", "gender: female, age: young adult"),
    ("zh", "小女孩奶声奶气地说话", "gender: female, age: child"),
    ("zh", "一个十几岁的女孩", "gender: female, age: teenager"),
    ("zh", "这位老先生说话很慢", "gender: male, age: senior, rate: slow"),
    ("zh", "她并不生气", "gender: female"),
    ("zh", "没有愤怒，也不悲伤", ""),
    ("zh", "其他人都很安静", ""),
    ("zh", "嗓音低沉", "pitch: low"),
    ("zh", "低声说话", "energy: soft"),
    ("zh", "音调非常高", "pitch: very high"),
    ("zh", "语速不快", ""),
    ("zh", "语速不快不慢", "rate: moderate"),
    ("zh", "愉快地说", "emotion: happy"),
    ("zh", "语速飞快", "rate: very fast"),
    ("zh", "声音洪亮，情绪激动", "energy: loud, emotion: excited"),
    ("zh", "不仅高兴而且激动", "emotion: happy, emotion: excited"),
    ("zh", "语调单调", "pitch_range: monotone"),
    ("zh", "语调抑扬顿挫", "pitch_range: lively"),
    ("zh", "停顿很少", "pauses: few"),
    ("zh", "停顿极少", "pauses: hardly any"),
    ("zh", "几乎没有停顿", "pauses: hardly any"),
    ("zh", "重音非常突出", "emphasis: very strong"),
    ("zh", "没有明显的重音", "emphasis: none"),
    ("zh", "约50岁的男人", "gender: male, age: middle-aged"),
    ("zh", "母亲对女儿轻声说话", "gender: female, energy: soft"),
    ("zh", "不高兴", "emotion: sad"),
    ("zh", "未成年", ""),
    ("zh", "有气无力", "emotion: tired"),
    ("zh", "他们说的话", ""),
    ("zh", "语气平静，毫无怒气", "emotion: calm"),
    ("zh", "非常愤怒", "emotion: angry"),
    ("zh", "音量适中", "energy: moderate"),
    ("en", "her pitch low and her pace unhurried", "gender: female, pitch: low, rate: slow"),
    ("en", "at a relaxed, easy pace", ""),
    ("en", "neither happy nor sad, just neutral", "emotion: neutral"),
    ("en", "neither loud nor soft, with frequent pauses", "energy: moderate, pauses: many"),
    ("en", "She talks to a man, without pauses.", "gender: female, pauses: hardly any"),
    ("en", "without a break", "pauses: hardly any"),
    ("en", "no pauses at all", "pauses: hardly any"),
    ("en", "There is no trace of anger.", ""),
    ("en", "an old lady's trembling voice", "gender: female, age: senior"),
    ("zh", "说话不快，透着一丝疲惫，没有明显的愤怒", "emotion: tired"),
    ("zh", "声音轻柔，停顿较多", "energy: soft, pauses: many"),
    ("fr", "Une femme en colère", ""),
]


@pytest.mark.parametrize(("language", "text", "says"), PHRASES)
def test_a_phrase_says_what_a_reader_takes_from_it(language: str, text: str, says: str) -> None:
    found = {f"{claim.name}: {claim.value}" for claim in claims_in(text, language)}
    assert found == set(filter(None, says.split(", ")))


def test_a_thing_said_twice_counts_once_and_in_order() -> None:
    text = "Angry and fast, the woman talks quickly; she is furious."
    assert claims_in(text, "en") == (
        Claim(name="emotion", value="angry"),
        Claim(name="rate", value="fast"),
        Claim(name="gender", value="female"),
    )


@pytest.mark.parametrize("language", ["fr", "xx", "", "../en"])
def test_a_language_without_a_lexicon_finds_nothing(language: str) -> None:
    assert claims_in("An angry man. 一位愤怒的男性。", language) == ()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_closed_value_has_words(language: str) -> None:
    lexicon = lexicon_of(language)
    assert lexicon is not None
    known = {claim for phrase in lexicon.phrases for claim in phrase.claims}
    assert known >= {Claim(name=name, value=value) for name in CLOSED for value in CLOSED[name]}
    grown = {("age", "adult")}
    assert all(
        claim.value in CLOSED[claim.name] or (claim.name, claim.value) in grown for claim in known
    )


@settings(deadline=None)
@given(text=st.text(), language=st.sampled_from(["en", "zh"]))
def test_any_text_can_be_read(text: str, language: str) -> None:
    found = claims_in(text, language)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_capitals_and_typographic_apostrophes_change_nothing(language: str) -> None:
    for told, text, _ in PHRASES:
        if told == language:
            shouted = text.upper().replace("'", "’")
            assert claims_in(shouted, language) == claims_in(text, language)
