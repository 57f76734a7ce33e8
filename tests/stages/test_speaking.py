"""Attempts depend on their clone and seed alone, and what cannot be spoken is found out first."""

import pickle
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.registry import checkpoint_hash
from model_core.checkpoint import load_checkpoint
from model_core.flow_matching import SolverConfig
from model_core.synthesis import Recording, SpeechRequest, Synthesizer
from pipeline.guard import guarded
from schemas.cloning import Candidate, Clone
from schemas.errors import (
    ConfigError,
    EmptyAudio,
    ModelLoadError,
    NonFiniteAudio,
    SilentAudio,
    TooShortAudio,
    UnspeakableText,
)
from stages.flac import wave_of
from stages.marking import Marking
from stages.speaking import (
    SLACK_S,
    Speaking,
    SpeakingConfig,
    Voices,
    seeds_of,
    utterances_of,
)

DATA = Path(__file__).parents[1] / "data"
V2 = DATA / "core" / "v2"
SPEECH, RATE = sf.read(DATA / "devset" / "audio" / "en_allison_s1.flac", dtype="float32")
CONFIG = SpeakingConfig(candidates=2, num_steps=2, batch_size=3, longest=1.0)


@cache
def stages(config: SpeakingConfig = CONFIG) -> tuple[Voices, Speaking]:
    both = (
        Voices(config, str(V2), checkpoint_hash(V2)),
        Speaking(config, str(V2), checkpoint_hash(V2)),
    )
    for stage in both:
        stage.setup()
    return both


def clone(name: str, text: str = "Please hold the line.", **changes: object) -> Clone:
    start = int(name, 16) % 20 * RATE
    whole = Clone(
        clip_id=name,
        attempt=1,
        text=text,
        language="en",
        description="A calm voice.",
        expected_s=0.2 + 0.05 * len(text) / 10,
        seed=int(name, 16),
        reference=SPEECH[start : start + 2 * RATE],
        reference_rate=RATE,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


CLONES = (
    clone("1"),
    clone("2", "A much longer sentence that takes its time, and some more."),
    clone("3", "Yes."),
)


def spoken(batch: list[Clone], config: SpeakingConfig = CONFIG) -> list[Clone]:
    voices, speaking = stages(config)
    return speaking.process(voices.process(batch))


@cache
def alone(number: int) -> Clone:
    return spoken([CLONES[number]])[0]


@settings(deadline=None, max_examples=5)
@given(st.lists(st.sampled_from([0, 1, 2]), min_size=2, max_size=3, unique=True))
def test_a_batch_gives_what_each_clone_gives_alone(numbers: list[int]) -> None:
    for number, together in zip(numbers, spoken([CLONES[n] for n in numbers]), strict=True):
        assert together.clip_id == CLONES[number].clip_id
        assert together.voice is together.reference is None
        for one, other in zip(together.candidates, alone(number).candidates, strict=True):
            assert (one.seed, one.stopped) == (other.seed, other.stopped)
            assert one.wave is not None
            assert other.wave is not None
            assert one.wave.shape == other.wave.shape
            assert np.allclose(one.wave, other.wave, atol=1e-4)


def test_an_attempt_is_what_the_synthesizer_says_with_that_seed_voice_and_description() -> None:
    synthesizer = Synthesizer(
        load_checkpoint(V2, dtype=torch.float32), solver=SolverConfig(num_steps=2)
    )
    asked = CLONES[0]
    assert asked.reference is not None
    for attempt in alone(0).candidates:
        request = SpeechRequest(
            text=asked.text,
            description=asked.description,
            reference=Recording(torch.from_numpy(asked.reference), RATE),
            seed=attempt.seed,
            max_patches=int((asked.expected_s + 1.0) / synthesizer.patch_s),
        )
        [(_, speech)] = synthesizer.speak([request])
        assert attempt.sample_rate == speech.sample_rate
        assert attempt.stopped == speech.stopped
        assert np.allclose(attempt.wave, speech.wave.numpy(), atol=1e-4)


def test_seeds_are_of_the_clone_and_the_attempt_and_differ() -> None:
    seeds = seeds_of(CLONES[0], 4)
    assert seeds == seeds_of(CLONES[0], 4)
    assert seeds[:2] == seeds_of(CLONES[0], 2)
    others = seeds_of(CLONES[1], 4) + seeds_of(replace(CLONES[0], attempt=2), 4)
    assert len({*seeds, *others}) == 12
    assert all(0 <= seed < 2**63 for seed in seeds + others)
    waves = [one.wave for one in alone(0).candidates]
    assert waves[0] is not None
    assert not np.array_equal(waves[0], waves[1])


def test_an_attempt_is_cut_when_it_takes_too_long() -> None:
    voices, _ = stages()
    [voiced] = voices.process([CLONES[0]])
    [whole, _] = utterances_of(voiced, CONFIG)
    assert whole.longest_s == pytest.approx(CONFIG.longest * CLONES[0].expected_s + SLACK_S)
    cloner = voices._cloner
    assert cloner is not None
    cut = replace(whole, longest_s=0.5)
    ended, ran_on = cloner.speak([whole, cut])
    assert (ended.stopped, ran_on.stopped) == (True, False)
    assert ran_on.wave.size / cloner.sample_rate <= 0.5 < ended.wave.size / cloner.sample_rate


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (clone("4", ""), UnspeakableText),
        (clone("4", "and on " * 200), UnspeakableText),
        (clone("4", reference=np.zeros(2 * RATE, np.float32)), SilentAudio),
        (clone("4", reference=SPEECH[:100]), TooShortAudio),
        (clone("4", reference=SPEECH[:0]), EmptyAudio),
        (clone("4", reference=np.full(RATE, np.nan, np.float32)), NonFiniteAudio),
    ],
)
def test_what_cannot_be_spoken_fails_alone_before_anything_is_spoken(
    bad: Clone, error: type[Exception]
) -> None:
    voices, _ = stages()
    with pytest.raises(error):
        voices.process([bad])
    done, failures = guarded("voices", voices.process, [CLONES[0], bad, CLONES[1]])
    assert [one.clip_id for one in done] == ["1", "2"]
    assert [(one.row, one.error_type) for one in failures] == [(bad, error.__name__)]


def test_both_stages_share_one_checkpoint_pickle_and_refuse_another_than_was_planned() -> None:
    voices, speaking = stages()
    assert voices._cloner is speaking._cloner
    fresh = pickle.loads(pickle.dumps(Speaking(CONFIG, str(V2), checkpoint_hash(V2))))
    fresh.setup()
    assert fresh.process([]) == []
    with pytest.raises(ModelLoadError, match="another checkpoint here"):
        Voices(CONFIG, str(V2), "0" * 32).setup()


@pytest.mark.parametrize(
    "wrong",
    [
        {"candidates": 0},
        {"num_steps": 0},
        {"batch_size": 0},
        {"threads": 0},
        {"cfg": -1.0},
        {"cfg": float("nan")},
        {"longest": 0.5},
        {"device": "tpu"},
        {"dtype": "int8"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SpeakingConfig(**wrong)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- marking


def attempt(wave: np.ndarray) -> Candidate:
    return Candidate(seed=1, stopped=True, sample_rate=RATE, wave=wave.astype(np.float32))


@cache
def marking() -> Marking:
    stage = Marking()
    stage.setup()
    return stage


def test_every_attempt_is_stored_with_a_mark_that_its_detector_hears() -> None:
    from annotators.watermark import THRESHOLD, Watermark

    speech = SPEECH[RATE : 5 * RATE]
    given_ = clone("1", candidates=(attempt(speech), attempt(3 * speech / np.abs(speech).max())))
    [marked] = marking().process([given_])
    assert len(marked.candidates) == 2
    for one in marked.candidates:
        assert one.wave is None
        stored, rate = wave_of(one.audio)
        assert (rate, stored.size) == (RATE, speech.size)
        assert one.duration_s == pytest.approx(4.0)
        assert Watermark().score(stored, rate) >= THRESHOLD
        assert np.mean(np.abs(stored) >= 0.999) < 1e-3  # made quieter, not cut off flat
    plain, _ = wave_of(marked.candidates[0].audio)
    assert not np.array_equal(plain, speech)
    assert np.corrcoef(plain, speech)[0, 1] > 0.95


def test_an_attempt_that_is_no_number_is_left_out_and_only_such_fail_their_clone() -> None:
    nan = np.full(RATE, np.nan)
    some = clone("1", candidates=(attempt(nan), attempt(SPEECH[RATE : 2 * RATE])))
    [marked] = marking().process([some])
    assert len(marked.candidates) == 1
    with pytest.raises(NonFiniteAudio, match="all 2 attempts"):
        marking().process([clone("1", candidates=(attempt(nan), attempt(nan * np.inf)))])
