"""The policy for generated clips: the same rules as for recorded ones, over their own table."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from annotators.watermark import THRESHOLD
from pipeline.policy import judge_synthetic, load_policy, load_synthetic_policy
from schemas.arrow import SYNTHETIC, SYNTHETIC_VERDICTS
from schemas.errors import ConfigError
from schemas.synthetic import SyntheticVerdict

SYNTHETIC_POLICY = load_synthetic_policy("synthetic")
GOOD = {
    "clip_id": "a",
    "cer": 0.05,
    "cosine": 0.85,
    "dnsmos_ovrl": 3.0,
    "length_ratio": 1.2,
    "stopped": True,
    "watermark_score": 0.99,
}


def clones(*rows: dict[str, Any]) -> pl.DataFrame:
    empty = SYNTHETIC.schema.empty_table().select(SYNTHETIC_POLICY.columns)
    frame = pl.from_arrow(empty.replace_schema_metadata())
    assert isinstance(frame, pl.DataFrame)
    full = [{name: (GOOD | row).get(name) for name in frame.columns} for row in rows]
    return pl.DataFrame(full, schema=frame.schema)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"cer": 0.9}, ["words_wrong"]),
        ({"cer": float("nan")}, ["words_wrong"]),
        ({"cosine": 0.4}, ["other_voice"]),
        # Nobody compared the voices, so nobody knows that it is the right one.
        ({"cosine": None}, ["other_voice"]),
        ({"dnsmos_ovrl": 1.2}, ["low_dnsmos_ovrl"]),
        ({"length_ratio": 0.2}, ["too_fast"]),
        ({"length_ratio": 3.0}, ["too_slow"]),
        ({"stopped": False}, ["cut_off"]),
        ({"watermark_score": 0.0}, ["unmarked"]),
        ({"cer": 1.0, "cosine": 0.3, "stopped": False}, ["words_wrong", "other_voice", "cut_off"]),
    ],
)
def test_reasons_say_what_is_wrong_with_a_clone(
    changes: dict[str, Any], expected: list[str]
) -> None:
    [verdict] = judge_synthetic(clones(changes), SYNTHETIC_POLICY).to_dicts()
    assert verdict["reasons"] == expected
    assert verdict["accepted"] == (not expected)
    assert list(verdict) == [field.name for field in fields(SyntheticVerdict)]
    assert verdict["policy_hash"] == SYNTHETIC_POLICY.hash


def test_no_clones_have_no_verdicts() -> None:
    verdicts = judge_synthetic(clones(), SYNTHETIC_POLICY)
    assert verdicts.is_empty()
    SYNTHETIC_VERDICTS.check(verdicts.to_arrow().cast(SYNTHETIC_VERDICTS.schema).schema, "here")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("rules: {}", "accept every generated clip"),
        ("rules: {a: {column: snr_db, min: 3}}", "synthetic have no column snr_db"),
        ("rules: {a: {column: cosin, min: 3}}", "did you mean cosine"),
        ("rules: {a: {column: audio, only_null: true}}", "no column audio"),
        ("rules: {a: {column: stopped, max: 3}}", "stopped holds true or false"),
        ("rules: {a: {column: cer, max: 1, if: {column: text, below: 2}}}", "number is wanted"),
        ("rules: {a: {column: cer, max: 1, tiers: {telephone: {max: 2}}}}", "no tiers"),
        ("accept_tiers: [wideband]\nrules: {a: {column: cer, max: 1}}", "unknown setting"),
        ("- a", "rules by their reasons"),
    ],
)
def test_a_wrong_policy_is_named(tmp_path: Path, rules: str, message: str) -> None:
    (tmp_path / "p.yaml").write_text(rules)
    with pytest.raises(ConfigError, match=message):
        load_synthetic_policy(str(tmp_path / "p.yaml"))


def test_a_policy_of_the_other_kind_is_refused() -> None:
    with pytest.raises(ConfigError):
        load_synthetic_policy("default")
    with pytest.raises(ConfigError):
        load_policy("synthetic")


def test_what_the_detector_knows_again_is_what_the_policy_lets_pass() -> None:
    assert SYNTHETIC_POLICY.rules["unmarked"].min == THRESHOLD
