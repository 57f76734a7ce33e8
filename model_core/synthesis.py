"""Speech from text: what users and the cloning phase call.

    text alone                          reads it in some voice
    text, description                   a voice by design
    text, reference                     that voice says it
    text, reference, description        that voice says it as described
    text, prompt with its text          goes on where the prompt ends
    text, prompt, reference             the same in the reference's voice

Shapes: S samples, A patches, P frames of a patch, C latent channels.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model_core.audio import Padding, encode_patches, latents_of, voice_of
from model_core.checkpoint import Checkpoint
from model_core.flow_matching import SolverConfig
from model_core.generation.engine import Engine
from model_core.generation.requests import Generated, PatchRequest
from model_core.sequences import generation_sequence
from model_core.tokenizer import described, flattened
from schemas.errors import ConfigError, UnspeakableText


@dataclass(frozen=True, slots=True)
class Recording:
    """A waveform (S,) or (channels, S) and its rate in hertz."""

    wave: Tensor
    sample_rate: int


Voice = Recording | Tensor
"""A recording, or its latent patches (A, P, C), if it was encoded before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechRequest:
    """One utterance to be spoken."""

    text: str
    description: str | None = None
    """How and by whom, in words (V2 class)."""
    reference: Voice | None = None
    """Whose voice (V2 class)."""
    prompt: Voice | None = None
    """What the utterance continues; needs prompt_text."""
    prompt_text: str | None = None
    seed: int | None = None
    """The same seed gives the same speech, in whatever batch; None draws one."""
    min_patches: int = 2
    max_patches: int = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryConfig:
    """When an answer is taken to have gone wrong: it is too long for its text."""

    patches_per_token: float = 6.0
    """So many patches for each token of the text end an attempt, and make it a bad one."""
    max_attempts: int = 3


@dataclass(frozen=True, slots=True)
class Speech:
    """An utterance and how it came about."""

    wave: Tensor
    """(S,) float32."""
    sample_rate: int
    patches: Tensor
    """(A, P, C)."""
    stopped: bool
    """The model ended it; else it was cut at the longest that was allowed."""
    seed: int
    num_attempts: int


class Synthesizer:
    """A checkpoint made ready to speak: fused in place, no longer for training or saving."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        solver: SolverConfig | None = None,
        retry: RetryConfig | None = None,
        batch_size: int = 16,
    ) -> None:
        """batch_size: utterances in flight in `speak`."""
        self.model = checkpoint.model.fuse()
        self.vae = checkpoint.vae.requires_grad_(False).eval().fold_weight_norm()
        self.tokenizer = checkpoint.tokenizer
        self.retry = retry or RetryConfig()
        self._config = checkpoint.model.config
        self._engine = Engine(self.model, solver, batch_size=batch_size)

    @property
    def sample_rate(self) -> int:
        """Hertz of what is spoken."""
        return self.vae.config.out_sample_rate

    @property
    def patch_s(self) -> float:
        """Seconds of speech in a patch."""
        return self._config.patch_size * self.vae.config.out_hop / self.sample_rate

    def encode_reference(self, recording: Recording) -> Tensor:
        """Latent patches (A, P, C) of a voice reference. Raises DataError when it cannot be one."""
        return self._patches(recording, "the reference", "right")

    def encode_prompt(self, recording: Recording) -> Tensor:
        """Latent patches (A, P, C) of a prompt. Raises DataError when it cannot be one."""
        return self._patches(recording, "the prompt", "left")

    def speak(
        self, requests: Iterable[SpeechRequest], *, on_step: Callable[[float], None] | None = None
    ) -> Iterator[tuple[int, Speech]]:
        """Many utterances, as they end, each with its request's number.

        on_step: hears after each step how many seconds of speech it made, of all utterances.
        Raises DataError or ConfigError when the turn comes to a request that cannot be spoken;
        `prepare` says so beforehand.
        """
        asked: dict[int, PatchRequest] = {}

        def prepared() -> Iterator[PatchRequest]:
            for number, request in enumerate(requests):
                asked[number] = self.prepare(request)
                yield asked[number]

        def heard(num_patches: int) -> None:
            if on_step is not None:
                on_step(num_patches * self.patch_s)

        for number, answer in self._engine.generate(prepared(), on_step=heard):
            yield number, self._spoken(asked.pop(number), answer)

    def stream(self, request: SpeechRequest) -> Iterator[Tensor]:
        """One utterance as waveforms of a patch each, (S,) float32; nothing is tried again.

        The waveforms, one after the other, are what `speak` gives.
        """
        prepared = self.prepare(request)
        with torch.inference_mode():
            decoder = self.vae.stream()
            context = self._context(prepared)
            if context is not None:
                decoder.decode(self._on_device(context))
        for patch in self._engine.stream(prepared):
            with torch.inference_mode():
                wave = decoder.decode(self._on_device(patch[None]))[0, 0].float().cpu()
            yield wave

    def prepare(self, request: SpeechRequest) -> PatchRequest:
        """Tokens and patches of a request.

        Raises UnspeakableText, a DataError of the audio, or ConfigError for what this checkpoint
        or this combination does not offer.
        """
        self._check(request)
        text = described(flattened(request.text), request.description)
        self.tokenizer.check_speakable(request.text)  # a description does not make up for no text
        ids = whole = self.tokenizer.ids(text)
        if request.prompt_text is not None:
            # One string, as in training: the seam decides how its pieces are cut.
            whole = self.tokenizer.ids(flattened(request.prompt_text) + text)
        config = self._config
        empty = torch.zeros(0, config.patch_size, config.feat_dim)
        sequence = generation_sequence(
            whole,
            empty,
            reference=self._voice(request.reference, self.encode_reference),
            prompt=self._voice(request.prompt, self.encode_prompt),
        )
        room = config.max_length - len(sequence)
        if room < 1:
            raise UnspeakableText(
                f"text and voices take {len(sequence)} positions; the model has {config.max_length}"
            )
        bad = len(ids) * self.retry.patches_per_token
        return PatchRequest(
            sequence=sequence,
            seed=secrets.randbits(32) if request.seed is None else request.seed,
            min_patches=request.min_patches,
            max_patches=min(int(bad + 10), request.max_patches, room),
            too_many=bad,
            max_attempts=self.retry.max_attempts,
        )

    def _check(self, request: SpeechRequest) -> None:
        if request.seed is not None and not 0 <= request.seed < 2**63:
            raise ConfigError(f"a seed must be in [0, 2^63), got {request.seed}")
        says = (request.prompt_text or "").strip()
        if (request.prompt is None) != (request.prompt_text is None) or (
            request.prompt is not None and not says
        ):
            raise ConfigError("a prompt needs the text that it says, and a prompt text its audio")
        if request.prompt is not None and request.description:
            raise ConfigError(
                "a continuation keeps the manner of its prompt: no description, please"
            )
        if not self._config.is_v2:
            for name in ("reference", "description"):
                if getattr(request, name) is not None:
                    raise ConfigError(
                        f"a checkpoint of the V1 class takes no {name}; give a prompt and its text"
                    )

    def _voice(self, voice: Voice | None, encode: Callable[[Recording], Tensor]) -> Tensor | None:
        if voice is None:
            return None
        if isinstance(voice, Recording):
            return encode(voice)
        frames, channels = self._config.patch_size, self._config.feat_dim
        if voice.dim() != 3 or not len(voice) or voice.shape[1:] != (frames, channels):
            raise ConfigError(
                f"an encoded voice is (patches, {frames}, {channels}), not {tuple(voice.shape)}"
            )
        return voice.cpu()

    def _patches(self, recording: Recording, what: str, padding: Padding) -> Tensor:
        wave = voice_of(recording.wave, recording.sample_rate, what)
        return encode_patches(
            self.vae,
            wave,
            recording.sample_rate,
            patch_size=self._config.patch_size,
            padding=padding,
        ).cpu()

    def _context(self, request: PatchRequest) -> Tensor | None:
        """Prompt patches that the decoder hears first, so that the speech joins on without a seam."""
        if not bool(request.sequence.is_audio[-1]):
            return None
        tail = request.sequence.is_audio.flip(0).int().cumprod(0).sum()
        return request.sequence.patches[-min(int(tail), 3 if self._config.is_v2 else 2) :]

    def _spoken(self, request: PatchRequest, answer: Generated) -> Speech:
        context = self._context(request)
        patches = self._on_device(answer.patches, context)
        skip = 0 if context is None else len(context) * self._config.patch_size
        with torch.inference_mode():
            wave = self.vae.decode(patches)[0, 0, skip * self.vae.config.out_hop :]
        return Speech(
            wave.float().cpu(),
            self.sample_rate,
            answer.patches.cpu(),
            answer.stopped,
            answer.seed,
            answer.num_attempts,
        )

    def _on_device(self, patches: Tensor, before: Tensor | None = None) -> Tensor:
        """(A, P, C) -> (1, C, A · P) where the AudioVAE is."""
        device = self.vae.device
        patches = patches.to(device)
        if before is not None:
            patches = torch.cat((before.to(device), patches))
        return latents_of(patches)[None]
