"""The filter policy: every clip gets one verdict, and the reasons say what was wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.policy import SHIPPED, Policy, Rule, judge, load_policy
from schemas.arrow import CLIPS
from schemas.errors import ConfigError

DEFAULT = load_policy("default")
GOOD = {
    "clip_id": "a",
    "duration_s": 6.0,
    "bandwidth_hz": 7_800.0,
    "snr_db": 38.0,
    "clipping": 0.0,
    "dnsmos_ovrl": 3.2,
    "dnsmos_bak": 4.0,
    "dnsmos_p808": 3.9,
    "speech_ratio": 0.9,
    "word_cut_start": False,
    "word_cut_end": False,
    "lead_silence_s": 0.3,
    "trail_silence_s": 0.3,
    "text": "please hold",
    "asr_avg_logprob": -0.1,
    "asr_compression_ratio": 1.1,
    "asr_no_speech_prob": 0.1,
    "asr_word_prob_mean": 0.9,
    "chars_per_s": 14.0,
    "unique_trigram_ratio": 1.0,
    "impossible_word_ratio": 0.0,
    "silent_word_ratio": 0.0,
    "speaker_purity": 0.85,
}


def clips(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows over a good clip, with the types of the table."""
    empty = CLIPS.schema.empty_table().select(DEFAULT.columns).replace_schema_metadata()
    frame = pl.from_arrow(empty)
    assert isinstance(frame, pl.DataFrame)
    whole = [{"recording_id": (GOOD | row)["clip_id"]} | GOOD | row for row in rows]
    full = [{name: row.get(name) for name in frame.columns} for row in whole]
    return pl.DataFrame(full, schema=frame.schema)


def reasons(**changes: Any) -> list[str]:
    [verdict] = judge(clips(changes), DEFAULT).to_dicts()
    assert verdict["accepted"] == (not verdict["reasons"])
    return list(verdict["reasons"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"snr_db": 11.9}, ["low_snr"]),
        ({"snr_db": 12.0}, []),
        ({"clipping": 0.002}, ["clipped"]),
        ({"dnsmos_ovrl": 1.8}, ["low_dnsmos_ovrl"]),
        ({"text": None}, ["no_text"]),
        ({"text": ""}, ["no_text"]),
        ({"word_cut_end": True}, ["word_cut_end"]),
        ({"stock_phrase": "thanks for watching"}, ["stock_phrase"]),
        ({"unique_trigram_ratio": 0.2}, ["looped_text"]),
        ({"bandwidth_hz": 4_000.0}, ["telephone_band"]),
        ({"bandwidth_hz": 4_000.0, "dnsmos_ovrl": 2.6}, ["telephone_band"]),
        ({"asr_no_speech_prob": 0.9}, []),
        ({"asr_no_speech_prob": 0.9, "asr_avg_logprob": -0.8}, ["no_speech"]),
        # A language that the recogniser does not know, with a given text.
        ({"asr_avg_logprob": None, "asr_word_prob_mean": None, "silent_word_ratio": None}, []),
        ({"duration_s": 1.0, "screened": "too_short"}, ["too_short"]),
        (
            {"snr_db": 3.0, "screened": "snr", "text": None, "dnsmos_ovrl": None},
            # Nobody looked for a text, so that there is none says nothing.
            ["screened_snr", "low_snr"],
        ),
        # A score that is no number is within no limits.
        ({"snr_db": float("nan")}, ["low_snr"]),
        ({"clipping": float("nan")}, ["clipped"]),
        ({"bandwidth_hz": float("nan")}, ["telephone_band"]),
    ],
)
def test_reasons_say_what_is_wrong(changes: dict[str, Any], expected: list[str]) -> None:
    assert reasons(**changes) == expected


def small_policy(folder: Path, rules: str) -> Policy:
    path = folder / "small.yaml"
    path.write_text("tiers: {wideband: 5000, fullband: 10000}\naccept_tiers: [wideband]\n" + rules)
    return load_policy(str(path))


@pytest.mark.parametrize("screened", ["too_short", "snr", "clipping"])
def test_no_policy_accepts_what_was_never_transcribed(tmp_path: Path, screened: str) -> None:
    lax = small_policy(tmp_path, "rules: {too_short: {column: duration_s, min: 0.1}}")
    frame = clips({"duration_s": 1.5, "screened": screened, "text": None})
    [verdict] = judge(frame, lax).to_dicts()
    assert not verdict["accepted"]
    assert len(verdict["reasons"]) == 1


@settings(deadline=None)
@given(scores=st.lists(st.sampled_from(["snr_db", "clipping", "text", "dnsmos_ovrl"]), max_size=8))
def test_every_clip_has_one_verdict_and_no_reason_twice(scores: list[str]) -> None:
    frame = clips(*({"clip_id": str(i), name: None} for i, name in enumerate(scores)))
    verdicts = judge(frame, DEFAULT)
    assert verdicts["clip_id"].to_list() == frame["clip_id"].to_list()
    assert verdicts["reasons"].list.n_unique().to_list() == verdicts["reasons"].list.len().to_list()
    assert verdicts["accepted"].to_list() == [name != "text" for name in scores]


def test_a_telephone_tier_is_accepted_on_request(tmp_path: Path) -> None:
    text = (SHIPPED / "default.yaml").read_text()
    path = tmp_path / "phone.yaml"
    path.write_text(text.replace("[wideband, fullband]", "[telephone, wideband, fullband]"))
    frame = clips({"bandwidth_hz": 4_000.0}, {"bandwidth_hz": 7_000.0}, {"bandwidth_hz": 16_000.0})
    verdicts = judge(frame, load_policy(str(path)))
    assert verdicts["tier"].to_list() == ["telephone", "wideband", "fullband"]
    assert verdicts["accepted"].all()


numbers = st.none() | st.floats(0, 100, allow_nan=False)


@settings(deadline=None)
@given(
    values=st.lists(st.tuples(numbers, numbers), max_size=20),
    minimum=st.floats(0, 50),
    more=st.floats(0, 50),
)
def test_a_stricter_threshold_never_accepts_more(
    values: list[tuple[float | None, float | None]], minimum: float, more: float
) -> None:
    frame = clips(*({"snr_db": a, "dnsmos_ovrl": b} for a, b in values))
    accepted = []
    for limit in (minimum, minimum + more):
        policy = replace(DEFAULT, rules={"low_snr": Rule(column="snr_db", min=limit)})
        verdicts = judge(frame, policy)
        assert verdicts.height == frame.height
        accepted.append(verdicts["accepted"])
    assert not (accepted[1] & ~accepted[0]).any()


def test_the_hash_changes_with_the_rules_and_not_with_the_comments(tmp_path: Path) -> None:
    text = (SHIPPED / "default.yaml").read_text()
    for name, content in {
        "same": "# another comment\n" + text,
        "other": text.replace("min: 12.0", "min: 12.5"),
    }.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    default = load_policy("default").hash
    assert load_policy(str(tmp_path / "same.yaml")).hash == default
    assert load_policy(str(tmp_path / "other.yaml")).hash != default


def test_judging_never_reads_the_audio() -> None:
    assert "audio" not in load_policy("default").columns


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("column: snr_db", "column: snr", "did you mean snr_db"),
        ("max: 0.0003", "maximum: 0.0003", "did you mean max"),
        ("accept_tiers: [wideband, fullband]", "accept_tiers: [wide]", "no tier wide"),
        ("when_null: reject", "when_null: maybe", "pass or reject"),
        ("{column: snr_db, min: 12.0}", "{column: snr_db}", "no min, max"),
        ("wideband: 5000", "wideband: 50000", "must ascend"),
        ("min: 12.0", "min: loud", "rules.low_snr.min"),
        ("min: 12.0", "min: .nan", "no number"),
        ("column: snr_db, min: 12.0", "column: text, min: 12.0", "text holds text"),
        ("{column: snr_db, min: 12.0}", "{column: snr_db, min: 9, max: 3}", "above max 3"),
        ("word_cut_end, not_in: [true]", "word_cut_end, not_in: ['true']", "true or false"),
        ("if: {column: asr_avg_logprob", "if: {column: text", "number is wanted"),
    ],
)
def test_a_wrong_policy_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (SHIPPED / "default.yaml").read_text()
    assert old in text
    (tmp_path / "p.yaml").write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load_policy(str(tmp_path / "p.yaml"))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "rules: [a]\n", "tiers: [1\n"])
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"p\.yaml"):
        load_policy(str(tmp_path / "p.yaml"))


def test_rules_take_text_and_whole_numbers(tmp_path: Path) -> None:
    rules = (
        "rules: {other_language: {column: language, not_in: [en]},"
        " opening: {column: index_in_recording, not_in: [0]}}"
    )
    policy = small_policy(tmp_path, rules)
    frame = clips({"clip_id": "a"}, {"clip_id": "b"}).with_columns(
        language=pl.Series(["en", "fr"]), index_in_recording=pl.Series([1, 0])
    )
    assert judge(frame, policy)["reasons"].to_list() == [["other_language"], ["opening"]]


def test_a_rate_is_judged_by_its_language() -> None:
    rng = np.random.default_rng(0)
    languages = {"en": 15.0, "zh": 4.5}
    rows: list[dict[str, Any]] = [
        {
            "clip_id": f"{code}{i}",
            "language": code,
            "chars_per_s": rate * np.exp(rng.normal(0, 0.2)),
        }
        for code, rate in languages.items()
        for i in range(60)
    ]
    # Too fast for Chinese, usual in English; too slow for English, usual in Chinese.
    rows += [{"clip_id": "fast", "language": "zh", "chars_per_s": 20.0}]
    rows += [{"clip_id": "slow", "language": "en", "chars_per_s": 4.0}]
    # Of three clips nothing is learned.
    rows += [
        {"clip_id": f"few{i}", "language": "fr", "chars_per_s": rate}
        for i, rate in enumerate((10.0, 11.0, 29.0))
    ]
    verdicts = {row["clip_id"]: row["reasons"] for row in judge(clips(*rows), DEFAULT).to_dicts()}
    assert {name for name, why in verdicts.items() if why} == {"fast", "slow"}
    assert verdicts["fast"] == verdicts["slow"] == ["unusual_rate"]


def test_wrong_texts_do_not_move_the_usual_rate() -> None:
    rows: list[dict[str, Any]] = [
        {"clip_id": f"good{i}", "language": "en", "chars_per_s": 13.0 + 0.05 * i} for i in range(60)
    ]
    rows += [{"clip_id": f"bad{i}", "language": "en", "chars_per_s": 29.0} for i in range(25)]
    verdicts = judge(clips(*rows), DEFAULT)
    rejected = verdicts.filter(~pl.col("accepted"))["clip_id"]
    assert sorted(rejected) == sorted(f"bad{i}" for i in range(25))


def test_a_recording_in_a_foreign_language_goes_whole() -> None:
    foreign = [("f0", 0.45), ("f1", 0.52), ("f2", 0.82), ("f3", None)]
    own = [("e0", 0.95), ("e1", 0.55), ("e2", 0.9)]
    rows = [
        {"clip_id": name, "recording_id": name[0], "asr_word_prob_mean": prob}
        for name, prob in (*foreign, *own)
    ]
    verdicts = {row["clip_id"]: row["reasons"] for row in judge(clips(*rows), DEFAULT).to_dicts()}
    # What nobody read is not judged by what was read beside it.
    assert {name for name, why in verdicts.items() if "foreign_speech" in why} == {"f0", "f1", "f2"}
    assert verdicts["f2"] == ["foreign_speech"]
    assert verdicts["e1"] == []


@pytest.mark.parametrize("by", ["duration_s", "tongue"])
def test_a_median_is_over_a_column_of_text(tmp_path: Path, by: str) -> None:
    text = (SHIPPED / "default.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("median_by: recording_id", f"median_by: {by}"))
    with pytest.raises(ConfigError, match=by):
        load_policy(str(path))


@pytest.mark.parametrize(
    ("usual", "message"),
    [
        ("{by: language, deviations: 0}", "deviations must be above 0"),
        ("{by: language, deviations: 5, fewest: 2}", "fewest must be at least 3"),
        ("{by: duration_s, deviations: 5}", "usual.by want a column of text"),
        ("{by: tongue, deviations: 5}", "no column tongue"),
    ],
)
def test_what_is_usual_is_asked_in_the_right_words(
    tmp_path: Path, usual: str, message: str
) -> None:
    text = (SHIPPED / "default.yaml").read_text().replace("{by: language, deviations: 5}", usual)
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_policy(str(path))
