"""Clips get their text, words and confidences, or stay empty where no model can judge."""

import pickle
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import soundfile as sf

from pipeline.policy import judge, load_policy
from schemas.arrow import CLIPS
from schemas.errors import ConfigError, ModelLoadError
from schemas.rows import Chunk, Clip, Recording
from stages.transcription import (
    Transcription,
    TranscriptionConfig,
)
from tests.annotators.tiny_whisper import checkpoint

DEVSET = Path(__file__).parents[1] / "data" / "devset"
RATE = 16_000


def chunk_of(name: str, spans: list[tuple[float, float]]) -> Chunk:
    wave, _ = sf.read(DEVSET / "audio" / f"{name}.flac", dtype="float32")
    recording = Recording(
        recording_id=name,
        uri=name,
        session_id=name,
        duration_s=wave.size / RATE,
        sample_rate=RATE,
        channels=1,
        codec="flac",
        size_bytes=1,
        num_chunks=1,
    )
    clips = tuple(
        Clip(
            recording_id=name,
            session_id=name,
            chunk_index=0,
            start_sample=round(start * RATE),
            end_sample=round(end * RATE),
            sample_rate=RATE,
            start_s=start,
            end_s=end,
            duration_s=end - start,
        )
        for start, end in spans
    )
    return Chunk(
        recording=recording,
        index=0,
        start_sample=0,
        sample_rate=RATE,
        wave=wave,
        wave_16k=wave,
        clips=clips,
    )


SPANS = [(0.4, 4.6), (5.3, 7.2), (8.0, 9.9), (10.0, 13.9)]


@pytest.fixture(scope="module")
def stage() -> Transcription:
    made: Transcription = pickle.loads(pickle.dumps(Transcription(TranscriptionConfig())))
    made.setup()
    return made


def test_clips_get_text_words_and_confidences(stage: Transcription) -> None:
    chunk = chunk_of("en_allison_s1", SPANS)
    (done,) = stage.process([chunk])
    assert "not a valid conference number" in (done.clips[3].text or "")
    for clip in done.clips:
        assert clip.text == clip.text_asr == " ".join(word.word for word in clip.words)
        assert clip.text_source == "asr"
        assert clip.language == "en"
        assert clip.asr_avg_logprob is not None
        assert clip.asr_avg_logprob > -0.5
        assert clip.asr_word_prob_min is not None
        assert clip.asr_word_prob_mean is not None
        assert 0 < clip.asr_word_prob_min <= clip.asr_word_prob_mean <= 1
        assert all(0 <= word.start_s <= word.end_s <= clip.duration_s for word in clip.words)
    assert chunk.clips[0].text is None
    assert stage.process([chunk]) == [done]


def test_screened_clips_cost_nothing_and_stay_empty(stage: Transcription) -> None:
    chunk = chunk_of("en_allison_s1", SPANS)
    skipped = replace(chunk.clips[1], screened="snr")
    (done,) = stage.process([replace(chunk, clips=(chunk.clips[0], skipped, chunk.clips[2]))])
    assert done.clips[1] == skipped
    assert done.clips[2].text


def test_a_chunk_is_read_the_same_in_any_batch(stage: Transcription) -> None:
    one, other = chunk_of("en_allison_s1", SPANS), chunk_of("en_allison_s2", SPANS)
    assert stage.process([one, other]) == [*stage.process([one]), *stage.process([other])]


def test_a_language_that_the_model_does_not_know_leaves_the_text_open(stage: Transcription) -> None:
    chunk = chunk_of("fr_june_s1", [(0.5, 5.0)])
    declared = replace(chunk, recording=replace(chunk.recording, language="fr-FR"))
    (done,) = stage.process([declared])
    assert done.clips[0].language == "fr"
    assert done.clips[0].text is None
    assert done.clips[0].words == ()


@pytest.mark.parametrize(
    ("name", "foreign"), [("en_allison_s1", False), ("es_allison_s1", True), ("fr_june_s1", True)]
)
def test_speech_that_is_not_english_shows_in_what_an_english_model_hears(
    stage: Transcription, name: str, foreign: bool
) -> None:
    truth = pl.read_parquet(DEVSET / "ground_truth.parquet").filter(recording_id=name)
    chunk = chunk_of(name, list(truth.select("start", "end").iter_rows()))
    declared = replace(chunk, recording=replace(chunk.recording, language="en"))
    (done,) = stage.process([declared])
    verdicts = judge(pl.DataFrame(CLIPS.to_arrow(done.clips)), load_policy("default"))
    told = verdicts["reasons"].list.contains("foreign_speech")
    assert told.all() if foreign else not told.any()


def test_a_model_of_many_languages_says_how_likely_the_declared_one_is(tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "whisper")
    stage = Transcription(TranscriptionConfig(model=str(model)))
    stage.setup()
    chunk = chunk_of("es_allison_s1", SPANS[:2])
    declared = replace(chunk, recording=replace(chunk.recording, language="es-MX"))
    found, spanish = (stage.process([one])[0].clips[0] for one in (chunk, declared))
    assert spanish.language == "es"
    assert found.language != "es"
    assert found.language_prob is not None
    assert spanish.language_prob is not None
    # Random weights: of a hundred languages none is likely, and the declared one is less so.
    assert 0 < spanish.language_prob < found.language_prob < 0.1
    [verdict] = judge(pl.DataFrame(CLIPS.to_arrow([spanish])), load_policy("default")).to_dicts()
    assert "wrong_language" in verdict["reasons"]


def test_a_second_recogniser_gives_its_own_text() -> None:
    stage = Transcription(TranscriptionConfig(second_model="tiny.en"))
    stage.setup()
    (done,) = stage.process([chunk_of("en_allison_s1", SPANS[:2])])
    assert [clip.asr2_text for clip in done.clips] == [clip.text_asr for clip in done.clips]
    assert [clip.asr2_disagreement for clip in done.clips] == [0.0, 0.0]


def test_no_clips_are_no_error(stage: Transcription) -> None:
    (done,) = stage.process([chunk_of("en_allison_s1", [])])
    assert done.clips == ()
    assert stage.process([]) == []


def test_a_model_that_is_nowhere_stops_the_setup() -> None:
    with pytest.raises(ModelLoadError, match="no-such-model"):
        Transcription(TranscriptionConfig(model="no-such-model")).setup()


@pytest.mark.parametrize("wrong", [{"beam_size": 0}, {"device": "tpu"}, {"gap_s": -1.0}])
def test_wrong_settings_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TranscriptionConfig(**wrong)  # type: ignore[arg-type]
