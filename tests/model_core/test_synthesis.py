"""What the synthesizer speaks: as a stream or whole, again when it went wrong, or a refusal."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model_core.checkpoint import load_checkpoint
from model_core.flow_matching import SolverConfig
from model_core.synthesis import (
    Recording,
    RetryConfig,
    Speech,
    SpeechRequest,
    Synthesizer,
)
from schemas.errors import (
    ConfigError,
    NonFiniteAudio,
    SilentAudio,
    TooShortAudio,
    UnspeakableText,
    VoxquarryError,
)

CORE = Path(__file__).parents[1] / "data" / "core"


@cache
def synthesizer(name: str, **retry: float) -> Synthesizer:
    checkpoint = load_checkpoint(CORE / name, dtype=torch.float32)
    rules = RetryConfig(**retry)  # type: ignore[arg-type]
    return Synthesizer(checkpoint, solver=SolverConfig(num_steps=4), retry=rules, batch_size=2)


def spoken(name: str, *requests: SpeechRequest) -> list[Speech]:
    given = dict(synthesizer(name).speak(requests))
    return [given[i] for i in range(len(requests))]


def voice(rate: int, seconds: float = 1.0) -> Recording:
    wave = torch.randn(round(rate * seconds), generator=torch.Generator().manual_seed(1)) * 0.1
    return Recording(wave, rate)


PLAIN = SpeechRequest(text="hello world", seed=4, max_patches=6)
CONTINUED = replace(PLAIN, prompt=voice(22050), prompt_text="streaming audio .")
CLONED = replace(PLAIN, reference=voice(16000))
BOTH = replace(CONTINUED, reference=voice(48000))
DESIGNED = replace(PLAIN, description="An old man")
MODES = {
    "plain": PLAIN,
    "continued": CONTINUED,
    "cloned": CLONED,
    "both": BOTH,
    "designed": DESIGNED,
    "designed clone": replace(CLONED, description="whispering"),
}
CASES = [("v1", "plain"), ("v1", "continued"), ("v15", "continued")]
CASES += [("v2", mode) for mode in MODES] + [("v2b", "continued")]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_a_stream_joined_is_what_is_spoken_whole(name: str, mode: str) -> None:
    request = MODES[mode]
    [speech] = spoken(name, request)
    pieces = list(synthesizer(name).stream(request))
    per_patch = len(speech.wave) // len(speech.patches)
    assert [len(piece) for piece in pieces] == [per_patch] * len(speech.patches)
    config = synthesizer(name).vae.config
    assert per_patch == config.out_hop * speech.patches.shape[1]
    assert speech.sample_rate == config.out_sample_rate
    torch.testing.assert_close(torch.cat(pieces), speech.wave, atol=1e-4, rtol=1e-4)
    assert speech.wave.abs().max() > 1e-3


def test_the_decoder_hears_the_end_of_the_prompt_first() -> None:
    [speech] = spoken("v2", CONTINUED)
    with torch.inference_mode():
        cold = synthesizer("v2").vae.decode(speech.patches.flatten(0, 1).T[None])[0, 0]
    assert cold.shape == speech.wave.shape
    assert (cold - speech.wave).abs().max() > 1e-3


def test_each_way_of_asking_says_something_else() -> None:
    waves = [speech.wave[:7680] for speech in spoken("v2", *MODES.values())]
    for i, one in enumerate(waves):
        for other in waves[:i]:
            assert (one - other).abs().max() > 1e-3


def test_a_voice_that_was_encoded_before_is_the_same_voice() -> None:
    own = synthesizer("v2")
    encoded = replace(
        BOTH,
        prompt=own.encode_prompt(voice(22050)),
        reference=own.encode_reference(voice(48000)),
    )
    first, second = (own.prepare(request).sequence for request in (BOTH, encoded))
    assert first.tokens.equal(second.tokens)
    assert first.patches.equal(second.patches)


def test_requests_in_one_batch_are_spoken_like_each_alone() -> None:
    together = spoken("v2", *MODES.values())
    for speech, request in zip(together, MODES.values(), strict=True):
        [alone] = spoken("v2", request)
        torch.testing.assert_close(speech.wave, alone.wave, atol=1e-3, rtol=1e-3)


def test_a_seed_decides_the_speech_and_none_draws_one() -> None:
    drawn = replace(PLAIN, seed=None)
    first, second = spoken("v2", drawn, drawn)
    assert first.seed != second.seed
    assert not first.wave.equal(second.wave)
    [again] = spoken("v2", replace(PLAIN, seed=first.seed))
    torch.testing.assert_close(again.wave, first.wave, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["v1", "v15", "v2", "v2b"])
def test_an_answer_too_long_for_its_text_is_tried_again_like_the_official_one(name: str) -> None:
    case: dict[str, Any] = json.loads((CORE / name / "expected.json").read_text(encoding="utf-8"))
    case = case["badcase"]
    first, *_, last = case["seeds_tried"]
    own = Synthesizer(
        load_checkpoint(CORE / name, dtype=torch.float32),
        retry=RetryConfig(patches_per_token=case["ratio"], max_attempts=len(case["seeds_tried"])),
        batch_size=3,
    )
    bad = SpeechRequest(text=case["text"], seed=first, min_patches=10)
    prepared = own.prepare(bad)
    assert prepared.max_patches == case["max_len_used"]
    fine = SpeechRequest(text="hello world " * 4, seed=1, max_patches=5)
    given = dict(own.speak([fine, bad, fine]))
    assert given[1].seed == case["last_successful_seed"] == last
    assert given[1].num_attempts == len(case["seeds_tried"])
    assert len(given[1].patches) == case["n_patches"]
    assert given[0].num_attempts == given[2].num_attempts == 1
    calm = Synthesizer(
        load_checkpoint(CORE / name, dtype=torch.float32),
        retry=RetryConfig(patches_per_token=case["ratio"], max_attempts=1),
    )
    [(_, once)] = calm.speak([replace(bad, seed=last)])
    assert once.num_attempts == 1
    torch.testing.assert_close(given[1].patches, once.patches, atol=1e-4, rtol=1e-4)
    [(_, neighbour)] = calm.speak([fine])
    torch.testing.assert_close(given[0].patches, neighbour.patches, atol=1e-4, rtol=1e-4)


def test_a_stream_is_not_tried_again() -> None:
    own = synthesizer("v2", patches_per_token=0.5)
    short = SpeechRequest(text="a", seed=7, max_patches=4)
    assert len(list(own.stream(short))) >= 1
    [(_, speech)] = own.speak([short])
    assert speech.num_attempts == 3


def nothing_but(value: float) -> Recording:
    return Recording(torch.full((16000,), value), 16000)


@pytest.mark.parametrize(
    ("name", "request_", "error", "says"),
    [
        ("v2", replace(PLAIN, text=""), UnspeakableText, "the text is empty"),
        ("v2", replace(DESIGNED, text=" \n"), UnspeakableText, "the text is empty"),
        ("v2", replace(PLAIN, text="a " * 300), UnspeakableText, "the model has 256"),
        ("v2", replace(CLONED, reference=voice(16000, 41.0)), UnspeakableText, "has 256"),
        ("v2", replace(PLAIN, reference=voice(16000, 0.1)), TooShortAudio, "the reference lasts"),
        ("v2", replace(CONTINUED, prompt=voice(16000, 0.1)), TooShortAudio, "the prompt lasts"),
        ("v2", replace(PLAIN, reference=nothing_but(0.0)), SilentAudio, "the reference is silent"),
        ("v2", replace(PLAIN, reference=nothing_but(torch.nan)), NonFiniteAudio, "the reference"),
        ("v2", replace(CONTINUED, prompt_text=None), ConfigError, "a prompt needs the text"),
        ("v2", replace(CONTINUED, prompt_text=" "), ConfigError, "a prompt needs the text"),
        ("v2", replace(CONTINUED, prompt=None), ConfigError, "a prompt text its audio"),
        ("v2", replace(CONTINUED, description="angry"), ConfigError, "no description"),
        ("v2", replace(PLAIN, seed=2**64), ConfigError, "seed"),
        ("v2", replace(PLAIN, seed=-1), ConfigError, "seed"),
        ("v2", replace(PLAIN, max_patches=0), ConfigError, "max_patches"),
        ("v1", CLONED, ConfigError, "V1 class takes no reference"),
        ("v1", DESIGNED, ConfigError, "V1 class takes no description"),
    ],
)
def test_what_cannot_be_spoken_is_refused_in_one_line(
    name: str, request_: SpeechRequest, error: type[VoxquarryError], says: str
) -> None:
    for ask in (
        lambda: synthesizer(name).prepare(request_),
        lambda: list(synthesizer(name).speak([request_])),
        lambda: list(synthesizer(name).stream(request_)),
    ):
        with pytest.raises(error) as caught:
            ask()
        assert says in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_speech_never_runs_over_the_positions_of_the_model() -> None:
    own = synthesizer("v2", patches_per_token=100.0, max_attempts=1)
    limit = own.model.config.max_length
    request = SpeechRequest(text="a" * 235, seed=0)
    prepared = own.prepare(request)
    assert len(prepared.sequence) + prepared.max_patches == limit
    [(_, speech)] = own.speak([replace(request, min_patches=300)])
    assert len(speech.patches) == prepared.max_patches
    assert speech.wave.isfinite().all()


def test_the_end_of_the_text_is_all_that_the_limit_looks_at() -> None:
    """Prompt text does not lengthen what may be said; official, and a prompt is often long."""
    short, long = (synthesizer("v2").prepare(r).max_patches for r in (PLAIN, CONTINUED))
    assert short == long == 6
    free = [replace(r, max_patches=2000) for r in (PLAIN, CONTINUED)]
    assert len({synthesizer("v2").prepare(r).max_patches for r in free}) == 1


def test_white_space_is_one_space_and_a_description_stands_before_the_text() -> None:
    own = synthesizer("v2")

    def tokens(request: SpeechRequest) -> Tensor:
        return own.prepare(request).sequence.tokens

    assert tokens(replace(PLAIN, text="hello\n\t world")).equal(tokens(PLAIN))
    assert tokens(DESIGNED).equal(tokens(replace(PLAIN, text="(An old man)hello world")))
    joined = replace(PLAIN, text="streaming audio .hello world")
    without_audio = own.prepare(CONTINUED).sequence
    assert without_audio.tokens[~without_audio.is_audio].equal(tokens(joined))


def test_every_second_that_is_made_is_told() -> None:
    told: list[float] = []
    requests = (PLAIN, replace(PLAIN, max_patches=3), replace(PLAIN, seed=9))
    spoken_s = sum(
        len(speech.wave) / speech.sample_rate
        for _, speech in synthesizer("v2").speak(requests, on_step=told.append)
    )
    assert sum(told) == pytest.approx(spoken_s)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4, 16), (3, 16, 4), (1, 3, 4, 16)])
def test_an_encoded_voice_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="an encoded voice is"):
        synthesizer("v2").prepare(replace(PLAIN, reference=torch.zeros(shape)))
