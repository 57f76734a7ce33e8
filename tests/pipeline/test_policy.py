"""The filter policy: every clip gets one verdict, and the reasons say what was wrong."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.policy import SHIPPED, judge, load_policy
from schemas.arrow import CLIPS
from schemas.errors import ConfigError

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
    policy = load_policy("default")
    empty = CLIPS.schema.empty_table().select(policy.columns).replace_schema_metadata()
    frame = pl.from_arrow(empty)
    assert isinstance(frame, pl.DataFrame)
    full = [{name: (GOOD | row).get(name) for name in frame.columns} for row in rows]
    return pl.DataFrame(full, schema=frame.schema)


def reasons(**changes: Any) -> list[str]:
    [verdict] = judge(clips(changes), load_policy("default")).to_dicts()
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
            ["screened_snr", "low_snr", "no_text"],
        ),
    ],
)
def test_reasons_say_what_is_wrong(changes: dict[str, Any], expected: list[str]) -> None:
    assert reasons(**changes) == expected


def test_a_telephone_tier_is_accepted_on_request(tmp_path: Path) -> None:
    text = (SHIPPED / "default.yaml").read_text()
    path = tmp_path / "phone.yaml"
    path.write_text(text.replace("[wideband, fullband]", "[telephone, wideband, fullband]"))
    frame = clips({"bandwidth_hz": 4_000.0}, {"bandwidth_hz": 7_000.0}, {"bandwidth_hz": 16_000.0})
    verdicts = judge(frame, load_policy(str(path)))
    assert verdicts["tier"].to_list() == ["telephone", "wideband", "fullband"]
    assert verdicts["accepted"].all()


numbers = st.none() | st.floats(0, 100, allow_nan=False)


@given(
    values=st.lists(st.tuples(numbers, numbers), max_size=20),
    minimum=st.floats(0, 50),
    more=st.floats(0, 50),
)
def test_a_stricter_threshold_never_accepts_more(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[tuple[float | None, float | None]],
    minimum: float,
    more: float,
) -> None:
    frame = clips(*({"snr_db": a, "dnsmos_ovrl": b} for a, b in values))
    accepted = []
    for limit in (minimum, minimum + more):
        path = tmp_path_factory.mktemp("policy") / "p.yaml"
        path.write_text(
            "tiers: {wideband: 5000, fullband: 10000}\naccept_tiers: [wideband]\n"
            f"rules: {{low_snr: {{column: snr_db, min: {limit}}}}}\n"
        )
        verdicts = judge(frame, load_policy(str(path)))
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
    ],
)
def test_a_wrong_policy_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (SHIPPED / "default.yaml").read_text()
    assert old in text
    (tmp_path / "p.yaml").write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load_policy(str(tmp_path / "p.yaml"))
