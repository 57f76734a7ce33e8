"""Descriptions: said from what is known, verified, and never left with what is wrong."""

import io
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import soundfile as sf

from annotators.claims import claims_in
from annotators.grammar import writing as grammar
from annotators.registry import resolve
from annotators.silero import Silero, speech_spans
from annotators.verifier import CONTRADICTED, Hearing, VerifierConfig
from schemas.arrow import ATTRIBUTES
from schemas.attributes import HeardClip, Traits
from schemas.descriptions import Claim
from schemas.errors import MalformedAnswer
from stages.acoustics import AcousticsStage
from stages.description import (
    CONTRADICTION,
    LOST_CORE,
    Describing,
    Draft,
    Writer,
    claims_of,
    described,
    facts_of,
)
from stages.experts import Experts, ExpertsConfig
from stages.levels import expressiveness_level, levels_of, measured
from stages.traits import scored, traits_of

RATE = 16_000
CONFIG = VerifierConfig()
CLEAN = ("en_allison_s1", "en_allison_s2", "es_allison_s1", "fr_june_s1", "en_ami_dialogue_dev")


@pytest.fixture(scope="module")
def traits(devset: Path) -> list[Traits]:
    """Of every clean utterance of 2 s and more, measured and leveled as a corpus."""
    truth = pl.read_parquet(devset / "ground_truth.parquet")
    model = Silero(resolve("silero").path)
    clips, rows = [], []
    for name in CLEAN:
        wave, _ = sf.read(devset / "audio" / f"{name}.flac", dtype="float32")
        for row in truth.filter(pl.col("recording_id") == name).to_dicts():
            if row["end"] - row["start"] < 2:
                continue
            piece = wave[round(row["start"] * RATE) : round(row["end"] * RATE)]
            speech = speech_spans(
                model.probs(piece),
                duration_s=piece.size / RATE,
                threshold=0.5,
                min_speech_s=0.25,
                min_silence_s=0.3,
                pad_s=0.03,
            )
            clip_id = f"{name}-{len(clips)}"
            clips.append(
                HeardClip(
                    clip_id=clip_id,
                    attempt=1,
                    wave=piece,
                    sample_rate=RATE,
                    wave_16k=piece,
                    speech=speech,
                )
            )
            letters = sum(char.isalnum() for char in row["text"] or "")
            spoken = sum(span.end_s - span.start_s for span in speech)
            rate = letters / spoken if spoken and letters else None
            rows.append((clip_id, row["language"], row["speaker"], name, rate, 40.0))
    experts = Experts(ExpertsConfig())
    experts.setup()
    heard = experts.process(AcousticsStage().process(clips))
    table = ATTRIBUTES.to_arrow([clip.attributes for clip in heard])
    attributes = pl.from_arrow(table.replace_schema_metadata())
    assert isinstance(attributes, pl.DataFrame)
    names = ["clip_id", "language", "speaker", "session_id", "chars_per_s", "snr_db"]
    frame = attributes.join(pl.DataFrame(rows, schema=names, orient="row"), on="clip_id")
    levels = levels_of(measured(frame))
    levels.append(expressiveness_level(scored(frame, levels)))
    return [Traits(**row) for row in traits_of(frame, levels, 1.0).to_dicts()]


def draft(traits: Traits, language: str = "en", **changes: object) -> Draft:
    return replace(
        Draft(clip_id=traits.clip_id, attempt=1, language=language, traits=traits), **changes
    )


@pytest.mark.parametrize("language", grammar.LANGUAGES)
def test_what_the_grammar_says_of_real_clips_holds(traits: list[Traits], language: str) -> None:
    assert len(traits) >= 50
    for row in traits:
        found = described(draft(row, language), CONFIG)
        assert found.accepted, found
        assert not [v for v in found.verified if v.verdict == CONTRADICTED]
        assert found.text == found.text_written
        assert set(found.attributes) <= set(claims_of(row))
        assert {(c.name, c.value) for c in claims_in(found.text, language)} <= {
            (c.name, c.value) for c in claims_of(row)
        }


def wrong_for(traits: Traits) -> list[Claim]:
    """What is not so, whoever says it: the other gender, a child, a mood far away."""
    wrong = []
    if traits.gender:
        other = "male" if traits.gender == "female" else "female"
        wrong.append(Claim(name="gender", value=other))
    wrong.append(Claim(name="age", value="child"))
    far = "tired" if (traits.arousal or 0.0) > 0 else "excited"
    wrong.append(Claim(name="emotion", value=far))
    wrong.append(Claim(name="emotion", value="angry" if far == "excited" else "sad"))
    return wrong


@pytest.mark.parametrize("language", grammar.LANGUAGES)
def test_planted_falsehoods_are_caught_and_said_no_more(
    traits: list[Traits], language: str
) -> None:
    """Wrong gender, wrong age and wrong emotion, in the claims, in the words, and in both."""
    caught: dict[str, list[bool]] = {"gender": [], "age": [], "emotion": []}
    for row in traits:
        for wrong in wrong_for(row):
            right = [c for c in claims_of(row) if c.name != wrong.name]
            # A child's gender is told by other words; what is right must stay right.
            right = [c for c in right if not (wrong.name == "age" and c.name == "gender")]
            text = grammar.write([*right, wrong], language, row.clip_id).text
            for claims in ((*right, wrong), tuple(right)):
                found = described(draft(row, language, text=text, claims=claims), CONFIG)
                verdicts = {(v.name, v.claimed): v.verdict for v in found.verified}
                hit = verdicts.get((wrong.name, wrong.value)) == CONTRADICTED
                caught[wrong.name].append(hit)
                if hit and found.accepted:
                    assert wrong not in claims_in(found.text, language)
                    assert wrong not in found.attributes
                    assert found.text_written == text
    shares = {name: sum(hits) / len(hits) for name, hits in caught.items()}
    print({name: f"{share:.1%} of {len(caught[name])}" for name, share in shares.items()})  # noqa: T201
    assert all(share >= 0.9 for share in shares.values()), shares


WOMAN = Traits(
    clip_id="c",
    gender="female",
    gender_confidence=0.97,
    age="adult",
    age_confidence=0.98,
    pitch="high",
    rate="fast",
    energy="moderate",
    emotion="neutral",
    emotion_confidence=0.9,
    arousal=0.0,
    arousal_confidence=0.9,
    chosen=True,
)


def test_what_is_left_is_said_anew_with_what_no_expert_knows() -> None:
    claims = (
        Claim(name="gender", value="male"),
        Claim(name="pitch", value="high"),
        Claim(name="rate", value="fast"),
        Claim(name="accent", value="Scottish"),
    )
    written = "A man with a Scottish accent speaks fast, in a high voice."
    found = described(draft(WOMAN, text=written, claims=claims), CONFIG)
    assert found.accepted
    assert found.text_written == written
    assert "Scottish" in found.text
    assert not [c for c in claims_in(found.text, "en") if c.name == "gender"]
    assert [v.name for v in found.verified if v.verdict == CONTRADICTED] == ["gender"]


def test_a_lost_core_is_a_reason() -> None:
    claims = (Claim(name="gender", value="male"), Claim(name="pitch", value="low"))
    text = "A man speaks in a low-pitched voice."
    found = described(draft(WOMAN, text=text, claims=claims), CONFIG)
    assert found.reasons == (LOST_CORE,)
    assert not found.accepted
    nothing = described(draft(Traits(clip_id="c", chosen=True)), CONFIG)
    assert nothing.reasons == (LOST_CORE,)


def test_a_language_without_grammar_cannot_be_said_anew() -> None:
    claims = (
        Claim(name="gender", value="male"),
        Claim(name="pitch", value="high"),
        Claim(name="rate", value="fast"),
    )
    text = "Un hombre habla deprisa con voz aguda."
    found = described(draft(WOMAN, "es", text=text, claims=claims), CONFIG)
    assert found.reasons == (CONTRADICTION,)
    right = described(draft(WOMAN, "es", text=text, claims=claims[1:]), CONFIG)
    assert right.accepted
    assert right.text == text


def test_a_judge_takes_out_what_it_heard_otherwise() -> None:
    claims = (
        Claim(name="gender", value="female"),
        Claim(name="accent", value="Scottish"),
        Claim(name="rate", value="fast"),
    )
    text = "A woman with a Scottish accent speaks quickly."
    hearing = Hearing(agrees=False, view=None, confidence=None, model="judge-1")
    kept = draft(WOMAN, text=text, claims=claims, hearings={"accent": hearing})
    found = described(kept, CONFIG)
    assert found.accepted
    assert "Scottish" not in found.text
    assert {v.by for v in found.verified if v.name == "accent"} == {"judge-1"}


def test_an_answer_that_never_came_goes_to_quarantine() -> None:
    stage = Describing(CONFIG)
    stage.setup()
    silent = draft(WOMAN, failure="malformed: no JSON", writer=Writer(kind="chat", model="m"))
    with pytest.raises(MalformedAnswer, match="no JSON"):
        stage.process([silent])
    assert stage.process([]) == []


def test_what_is_unsure_is_not_said() -> None:
    unsure = replace(WOMAN, gender_confidence=0.6, age_confidence=0.6, emotion_confidence=0.4)
    assert {claim.name for claim in claims_of(unsure)} == {"pitch", "rate", "energy"}
    assert facts_of(unsure) == {"pitch": "high", "rate": "fast", "energy": "moderate"}


def test_the_stages_pickle_and_run_twice_alike(devset: Path) -> None:
    import pickle

    wave, rate = sf.read(devset / "audio" / "en_allison_s1.flac", dtype="float32", stop=48_000)
    clip = HeardClip(clip_id="c", attempt=2, wave=wave, sample_rate=rate, wave_16k=wave)
    buffer = io.BytesIO()
    for stage in (AcousticsStage(), Experts(ExpertsConfig()), Describing(CONFIG)):
        pickle.dump(stage, buffer)
    first, second = (AcousticsStage().process([clip]) for _ in range(2))
    assert first[0].attributes == second[0].attributes
    assert first[0].attributes is not None
    assert first[0].attributes.attempt == 2
    assert clip.attributes is None
