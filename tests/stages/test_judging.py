"""The best attempt is kept, and what is wrong with a clone is found: words, voice, no speech."""

import pickle
from dataclasses import replace
from functools import cache, partial

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.whisper import Transcription, Whisper
from jobs.clone import open_judges
from schemas.cloning import Candidate, Clone
from schemas.errors import ConfigError, UndecodableAudio
from schemas.rows import Wave
from stages.dnsmos import DnsmosConfig
from stages.flac import flac_bytes
from stages.judging import Judging, JudgingConfig, best, cosine_of, loudest_dbfs
from stages.speaker import SpeakerConfig, open_encoder
from stages.transcription import TranscriptionConfig
from tests.stages.planted import GOOD, Spoken, devset_utterances, planted, shares, verdicts_of

CONFIG = JudgingConfig()
RATE = 16_000


def one(
    cer: float, cosine: float | None = 0.8, ovrl: float | None = 3.0, *, stopped: bool = True
) -> Candidate:
    return Candidate(
        seed=0, stopped=stopped, sample_rate=RATE, cer=cer, cosine=cosine, dnsmos_ovrl=ovrl
    )


@pytest.mark.parametrize(
    ("candidates", "kept"),
    [
        ([one(0.2), one(0.1), one(0.3)], 1),
        # About as few errors: the voice decides, and only then how it sounds.
        ([one(0.10, 0.70), one(0.12, 0.80)], 1),
        ([one(0.10, 0.70), one(0.14, 0.80)], 0),
        ([one(0.1, 0.80, 2.5), one(0.1, 0.79, 3.5)], 1),
        ([one(0.1, 0.80, 2.5), one(0.1, 0.70, 3.5)], 0),
        # Nothing is left but the errors, then the order.
        ([one(0.11, 0.8, 3.0), one(0.1, 0.8, 3.0)], 1),
        ([one(0.1), one(0.1)], 0),
        # One that was cut is worse than one with errors, and better than nothing.
        ([one(0.0, stopped=False), one(0.3)], 1),
        ([one(0.4, stopped=False), one(0.2, stopped=False)], 1),
        # What was not measured is worst.
        ([one(0.1, None, None), one(0.1, 0.2, 1.0)], 1),
        ([one(1.0, None, None)], 0),
        ([one(0.1, None, 3.0), one(0.1, -1.0, 3.0)], 1),
        ([one(0.1, 0.80, 3.0), one(0.1, 0.81, 3.0)], 1),
    ],
)
def test_the_attempt_with_the_fewest_errors_then_the_likest_then_the_cleanest_is_kept(
    candidates: list[Candidate], kept: int
) -> None:
    assert best(candidates, CONFIG) == kept


attempts = st.builds(
    one,
    st.floats(0, 1.5),
    st.none() | st.floats(-1, 1),
    st.none() | st.floats(1, 5),
    stopped=st.booleans(),
)


@given(st.lists(attempts, min_size=1, max_size=6), st.data())
def test_the_choice_is_never_far_from_the_best_and_not_of_the_order(
    candidates: list[Candidate], data: st.DataObject
) -> None:
    kept = candidates[best(candidates, CONFIG)]
    shuffled = data.draw(st.permutations(candidates))
    assert shuffled[best(shuffled, CONFIG)] == kept
    ended = [c for c in candidates if c.stopped]
    assert kept.stopped == bool(ended)
    assert kept.cer <= min(c.cer for c in ended or candidates) + CONFIG.near_cer


@cache
def utterances() -> tuple[Spoken, ...]:
    return tuple(devset_utterances())


@cache
def judging() -> Judging:
    judges = partial(open_judges, TranscriptionConfig(), DnsmosConfig(), SpeakerConfig())
    stage = pickle.loads(pickle.dumps(Judging(CONFIG, judges)))
    stage.setup()
    assert isinstance(stage, Judging)
    return stage


@cache
def english(number: int) -> Spoken:
    found = [u for u in utterances() if u.language == "en" and len(u.text) > 30]
    return found[number]


def stored(wave: np.ndarray, seed: int) -> Candidate:
    audio = flac_bytes(wave.astype(np.float32), RATE)
    return Candidate(
        seed=seed, stopped=True, sample_rate=RATE, audio=audio, duration_s=wave.size / RATE
    )


def asked(name: str, *candidates: Candidate) -> Clone:
    voice = open_encoder(SpeakerConfig()).embed([english(1).wave])[0].embedding
    return Clone(
        clip_id=name,
        attempt=1,
        text=english(0).text,
        language="en",
        description="",
        expected_s=3.0,
        seed=0,
        speaker_embedding=voice,
        candidates=candidates,
    )


class Counting:
    """A recogniser that tells how many clips it was asked for."""

    def __init__(self, asr: Whisper, heard: list[int]) -> None:
        self.asr, self.heard = asr, heard

    def transcribe(self, waves: list[Wave], *how: str, **named: bool) -> list[Transcription]:
        self.heard.append(len(waves))
        return self.asr.transcribe(waves, *how, **named)


def test_of_several_attempts_the_one_that_says_the_text_is_kept_and_measured() -> None:
    silence = np.zeros(RATE)
    right, wrong = english(0).wave, english(2).wave
    clones = [
        asked("a", stored(silence, 0), stored(wrong, 1), stored(right, 2)),
        asked("b", stored(right, 3), replace(stored(right, 4), stopped=False)),
        asked("c", stored(silence, 5)),
    ]
    heard: list[int] = []
    judges = judging()._judges
    assert judges is not None
    counting = Counting(judges.asr, heard)
    stage = Judging(CONFIG, lambda: replace(judges, asr=counting))  # type: ignore[type-var]
    stage.setup()
    first, second, third = stage.process(clones)
    assert [clone.kept.seed for clone in (first, second, third)] == [2, 3, 5]
    assert heard[0] == 3  # neither silence nor what was cut
    assert first.kept.cer < 0.1
    assert first.kept.cosine is not None
    assert first.kept.cosine > 0.7
    assert first.kept.dnsmos_ovrl is not None
    assert first.kept.dnsmos_ovrl > 2.5
    assert (third.kept.text_asr, third.kept.cer) == ("", 1.0)
    assert third.kept.cosine is third.kept.dnsmos_ovrl is None
    # Whoever shares the batch changes nothing of it.
    [alone] = judging().process([clones[0]])
    assert alone.kept.text_asr == first.kept.text_asr
    assert alone.kept.cosine == pytest.approx(first.kept.cosine, abs=1e-5)


def test_a_voice_that_nobody_measured_is_heard_in_the_described_clip_itself() -> None:
    clone = asked("a", stored(english(0).wave, 1))
    described = flac_bytes(english(1).wave, RATE)
    [stored_voice] = judging().process([clone])
    [heard] = judging().process([replace(clone, speaker_embedding=None, described=described)])
    assert heard.kept.cosine == pytest.approx(stored_voice.kept.cosine, abs=0.01)
    assert not heard.described


def test_audio_that_does_not_decode_is_the_clips_own_failure() -> None:
    bad = replace(stored(np.zeros(10), 1), audio=b"nothing")
    with pytest.raises(UndecodableAudio):
        judging().process([asked("a", bad)])


@pytest.mark.slow
def test_planted_clones_are_told_apart() -> None:
    plants = list(planted(utterances(), each=4))
    verdicts = verdicts_of(plants)
    found = shares(verdicts)
    assert found.pop(GOOD) >= 0.9
    assert found.keys() == {
        *("wrong text", "wrong speaker", "silence", "noise", "babble", "half of it")
    }
    assert sum(found.values()) / len(found) <= 0.05, found
    why = dict(verdicts.group_by("kind").agg(pl.col("reasons").list.first().mode()).iter_rows())
    assert why["wrong text"] == ["words_wrong"]
    assert why["wrong speaker"] == ["other_voice"]


def test_loudness_and_cosine_of_nothing_are_numbers() -> None:
    assert loudest_dbfs(np.zeros(0, np.float32)) == -200
    assert loudest_dbfs(np.zeros(400, np.float32)) == -200
    assert loudest_dbfs(np.ones(400, np.float32)) == pytest.approx(0)
    assert cosine_of(np.zeros(3), np.ones(3)) == 0.0
    assert cosine_of(np.ones(3), -np.ones(3)) == pytest.approx(-1)


@pytest.mark.parametrize("wrong", [{"near_cer": -0.1}, {"near_cosine": 1.1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        JudgingConfig(**wrong)
