"""What a model is asked, and what is made of its answers: packaging is forgiven, content is not."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators import prompts
from annotators.answers import (
    Impression,
    Opinion,
    only_object,
    quotes,
    read_comparison,
    read_description,
    read_view,
)
from annotators.written import Written
from schemas.descriptions import CLOSED, FREE, Claim
from schemas.errors import MalformedAnswer

TRANSCRIPT = "The conference will begin when the leader arrives."
ANSWER: dict[str, Any] = {
    **{name: values[0] for name, values in CLOSED.items()},
    "age": "unsure",
    "texture": "slightly husky",
    "accent": "",
    "scenario": "a late-night radio show",
    "description": "A husky female voice, very low and very slow, as on late-night radio.",
}
VIEW = {name: {"value": values[-1], "confidence": 0.5} for name, values in CLOSED.items()}


def read(answer: str, language: str = "en", transcript: str | None = TRANSCRIPT) -> Written:
    return read_description(answer, language=language, transcript=transcript)


def with_(**changes: Any) -> str:
    return json.dumps({**ANSWER, **changes}, ensure_ascii=False)


def test_an_answer_by_the_schema_is_a_description_with_its_claims() -> None:
    written = read(json.dumps(ANSWER))
    assert written.text == ANSWER["description"]
    assert Claim(name="gender", value="female") in written.claims
    assert Claim(name="texture", value="slightly husky") in written.claims
    assert {"age", "accent"}.isdisjoint(claim.name for claim in written.claims)


@pytest.mark.parametrize(
    "packed",
    [
        "```json\n{}\n```",
        "Here is my answer:\n{}\nI hope it helps.",
        '<think>The pitch {{low?}} is {{"a": 1}} …</think>\n{}',
    ],
)
def test_packaging_is_forgiven(packed: str) -> None:
    answer = packed.replace("{{", "\0").replace("}}", "\1")
    answer = answer.replace("{}", json.dumps(ANSWER)).replace("\0", "{").replace("\1", "}")
    assert read(answer) == read(json.dumps(ANSWER))


def test_capitals_nulls_and_further_keys_are_forgiven() -> None:
    assert read(with_(gender=" Female ", age=None, accent=None, notes="none")) == read(
        json.dumps(ANSWER)
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "0 JSON objects"),
        ("I am sorry, I cannot listen to audio.", "0 JSON objects"),
        (json.dumps(ANSWER)[:-9], "0 JSON objects"),
        (json.dumps(ANSWER) * 2, "2 JSON objects"),
        (json.dumps([1, 2]), "0 JSON objects"),
        ("{}", "is a required property"),
        (with_(gender="robot"), "gender: 'robot' is not one of"),
        (with_(pitch=3), "pitch: 3 is not"),
        (with_(description=None), "too short"),
        (with_(description=" \n "), "too short"),
        (with_(description="A calm voice. " * 60), "at most 600"),
        (with_(description="I'm sorry, but I cannot describe this voice."), "refusal"),
        (with_(description="抱歉,我无法处理这段音频。"), "refusal"),
        (with_(description='She says "the conference will begin when" calmly.'), "repeats"),
        (with_(description="一个低沉的女声。"), "language en"),
        (with_(description="A calm\u0000 voice speaks."), "no text"),
        (with_(texture="husky " * 20), "texture has"),
        (json.dumps({**ANSWER, "description": "A calm \ud800 voice speaks."}), "no text"),
        (json.dumps({**ANSWER, "gender": "\ud800"}), "gender"),
        ("x" * 20_001, "20001 characters"),
        ('{"a":' * 3000, "0 JSON objects"),
    ],
)
def test_content_is_not_forgiven(answer: str, reason: str) -> None:
    with pytest.raises(MalformedAnswer) as caught:
        read(answer)
    assert reason in str(caught.value)
    str(caught.value).encode()


def test_a_description_is_read_in_the_language_that_was_asked_for() -> None:
    text = "一个低沉、缓慢的女声。"
    assert read(with_(description=text), language="zh").text == text
    with pytest.raises(MalformedAnswer, match="language zh"):
        read(json.dumps(ANSWER), language="zh")
    # A language whose script is not known is not held against it.
    assert read(json.dumps(ANSWER), language="cy")


@pytest.mark.parametrize(
    ("text", "transcript", "expected"),
    [
        ("A calm voice says that the Conference will, begin when it may.", TRANSCRIPT, True),
        ("A calm voice, as when a conference begins.", TRANSCRIPT, False),
        ("A calm yes.", "Yes.", False),
        ("她说今天天气很好。", "今天天气很好,我们出去玩。", False),
        ("她说今天天气很好我们出去。", "今天天气很好,我们出去玩。", True),
        ("他说谢谢大家。", "谢谢大家", True),
    ],
)
def test_repeating_the_words_is_told_from_a_coincidence(
    text: str, transcript: str, expected: bool
) -> None:
    assert quotes(text, transcript) is expected


def test_a_view_holds_what_the_model_is_sure_enough_to_name() -> None:
    view = read_view(json.dumps({**VIEW, "age": {"value": "unsure", "confidence": 0}}))
    assert Impression(name="gender", value="male", confidence=0.5) in view
    assert len(view) == len(CLOSED) - 1


@pytest.mark.parametrize("confidence", [1.5, -0.1, "high", True, None])
def test_a_confidence_is_a_share(confidence: Any) -> None:
    with pytest.raises(MalformedAnswer, match="confidence"):
        read_view(json.dumps({**VIEW, "age": {"value": "child", "confidence": confidence}}))


def test_not_a_number_is_no_confidence() -> None:
    bad = {**VIEW, "age": {"value": "child", "confidence": float("nan")}}
    with pytest.raises(MalformedAnswer):
        read_view(json.dumps(bad))


def test_every_claim_gets_an_opinion() -> None:
    answer = '{"pitch": "Agree", "texture": "disagree"}'
    assert read_comparison(answer, ["pitch", "texture"]) == (
        Opinion(name="pitch", opinion="agree"),
        Opinion(name="texture", opinion="disagree"),
    )
    with pytest.raises(MalformedAnswer, match="'rate' is a required property"):
        read_comparison(answer, ["pitch", "rate"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
near_misses = st.builds(
    lambda changes, dropped: {k: v for k, v in {**ANSWER, **changes}.items() if k not in dropped},
    st.dictionaries(st.sampled_from(sorted(ANSWER)), json_values | st.text()),
    st.sets(st.sampled_from(sorted(ANSWER)), max_size=1),
)
answers = st.one_of(
    st.text(),
    json_values.map(json.dumps),
    near_misses.map(json.dumps),
    st.tuples(st.text(), near_misses.map(json.dumps), st.text()).map("".join),
    near_misses.map(json.dumps).flatmap(
        lambda text: st.integers(0, len(text)).map(lambda end: text[:end])
    ),
)


@settings(max_examples=300, deadline=None)
@given(answer=answers)
def test_any_answer_is_read_or_refused_and_what_is_read_can_be_stored(answer: str) -> None:
    try:
        written = read(answer)
    except MalformedAnswer as error:
        str(error).encode()
        return
    assert 5 <= len(written.text.encode().decode()) <= 600
    for claim in written.claims:
        assert claim.name in FREE or claim.value in CLOSED[claim.name]
        claim.value.encode()


@settings(max_examples=100, deadline=None)
@given(answer=answers)
@pytest.mark.parametrize(
    "reader", [read_view, lambda answer: read_comparison(answer, ["pitch"]), only_object]
)
def test_no_answer_breaks_a_reader(reader: Callable[[str], Any], answer: str) -> None:
    try:
        reader(answer)
    except MalformedAnswer as error:
        str(error).encode()


def test_the_facts_and_the_language_are_told() -> None:
    prompt = prompts.describe(
        facts={"rate": "fast", "pitch": "low"}, transcript=TRANSCRIPT, language="zh"
    )
    text = prompt.messages[-1].text
    assert "pitch: low; rate: fast" in text
    assert TRANSCRIPT in text
    assert "Chinese" in text
    assert prompt.hears
    bare = prompts.describe(facts={}, transcript=None, language="cy").messages[-1].text
    assert "measured" not in bare
    assert "ISO 639-1 code cy" in bare


def test_the_prompt_hash_is_of_the_question_and_not_of_the_clip() -> None:
    one = prompts.describe(facts={"pitch": "low"}, transcript="one", language="en")
    two = prompts.describe(facts={}, transcript=None, language="en")
    other = prompts.describe(facts={}, transcript=None, language="zh")
    assert one.prompt_hash == two.prompt_hash
    hashes = {
        one.prompt_hash,
        other.prompt_hash,
        prompts.blind_view().prompt_hash,
        prompts.compare("{}", [Claim(name="pitch", value="low")]).prompt_hash,
        prompts.repair(one, "{", "cut").prompt_hash,
    }
    assert len(hashes) == 5


def test_a_repair_hears_the_clip_again_only_where_there_is_nothing_to_put_in_order() -> None:
    prompt = prompts.describe(facts={}, transcript=None, language="en")
    assert not prompts.repair(prompt, '{"gender": ', "cut short").hears
    assert prompts.repair(prompt, "I cannot.", "no JSON").hears
    told = prompts.repair(prompt, "", "no JSON").messages
    assert [message.role for message in told] == ["system", "user", "assistant", "user"]
    assert "no JSON" in told[-1].text


def test_the_blind_view_knows_nothing_of_the_description() -> None:
    claim = Claim(name="scenario", value="a late-night radio show")
    blind = prompts.blind_view()
    second = prompts.compare(json.dumps(VIEW), [claim])
    assert second.messages[: len(blind.messages)] == blind.messages
    assert not any(claim.value in message.text for message in blind.messages)
    assert claim.value in second.messages[-1].text
    assert list(second.schema["properties"]) == ["scenario"]
