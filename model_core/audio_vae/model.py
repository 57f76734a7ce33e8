"""The AudioVAE: waveform to latent frames and back, offline and as a stream (spec 11).

As built it is the module to train, with weight norm and gradients. `fold_weight_norm` turns it, in
place, into what inference runs: the same numbers in about half the time, in bounded memory.

Shapes: B batch, S samples, F latent frames, D latent channels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.audio_vae.config import AudioVAEConfig
from model_core.audio_vae.decoder import Decoder, NoiseSource, bucket_of
from model_core.audio_vae.encoder import Encoder
from model_core.audio_vae.folded_decoder import FoldedDecoder
from model_core.audio_vae.folded_encoder import FoldedEncoder
from model_core.audio_vae.folded_layers import State
from schemas.errors import ConfigError


class AudioVAE(nn.Module):
    """Encoder and decoder of one checkpoint."""

    def __init__(self, config: AudioVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: Encoder | FoldedEncoder = Encoder(config)
        self.decoder: Decoder | FoldedDecoder = Decoder(config)

    @property
    def folded(self) -> bool:
        """Whether it is for inference only: its state dict is empty, it stays on its device."""
        return isinstance(self.encoder, FoldedEncoder)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self._weight().device

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights, latents and waveforms."""
        return self._weight().dtype

    def _weight(self) -> Tensor:
        tensors = chain(self.parameters(), self.buffers())
        return next(tensor for tensor in tensors if tensor.is_floating_point())

    def encode(self, wave: Tensor) -> Tensor:
        """(B, 1, S) -> the mean of the latent, (B, D, F). Silence fills the last frame."""
        with self._exactly():
            if isinstance(self.encoder, FoldedEncoder):
                hidden = self.encoder.hidden(self._padded(wave), self.config.hop)
                return self.encoder.fc_mu(hidden, {}).mT
            return self.posterior(wave)[1]

    def posterior(self, wave: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 1, S) -> the encoder's last hidden layer (B, C, F), mean and log-variance (B, D, F)."""
        with self._exactly():
            if isinstance(self.encoder, FoldedEncoder):
                hidden = self.encoder.hidden(self._padded(wave), self.config.hop)
                heads = self.encoder.fc_mu(hidden, {}), self.encoder.fc_logvar(hidden, {})
                return hidden.mT, heads[0].mT, heads[1].mT
            hidden, mu, logvar = self.encoder(self._padded(wave))
            return hidden, mu, logvar

    def decode(
        self,
        latent: Tensor,
        sample_rate: int | Tensor | None = None,
        *,
        noise: NoiseSource | torch.Generator | None = None,
    ) -> Tensor:
        """(B, D, F) -> (B, 1, F · out_hop).

        sample_rate: hertz, one or one per row (B,); the decoder's own when None.
        noise: what the noise blocks draw from; the global generator when None.
        """
        with self._exactly():
            if isinstance(self.decoder, FoldedDecoder):
                return self.stream(sample_rate, noise=noise).decode(latent)
            bucket = self._bucket(sample_rate)
            return self.decoder(latent.to(self.dtype), bucket, self._noise(noise))

    def stream(
        self,
        sample_rate: int | Tensor | None = None,
        *,
        noise: NoiseSource | torch.Generator | None = None,
    ) -> "DecoderStream":
        """A decoder that remembers: chunks in, their samples out, as if decoded in one go.

        Fold the model first, or every stream folds a decoder of its own.
        """
        with torch.no_grad():
            decoder = self.decoder
            folded = decoder if isinstance(decoder, FoldedDecoder) else FoldedDecoder(decoder)
        return DecoderStream(folded, self._bucket(sample_rate), self._noise(noise), self.dtype)

    def fold_weight_norm(self) -> "AudioVAE":
        """Make this model ready for inference, in place and for good. Move it first, fold it last."""
        if isinstance(self.encoder, Encoder) and isinstance(self.decoder, Decoder):
            with torch.no_grad():
                self.encoder = FoldedEncoder(self.encoder)
                self.decoder = FoldedDecoder(self.decoder)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AudioVAE":
        # Packed weights are not among the buffers, so they would be left behind.
        if self.folded and fn(self._weight()) is not self._weight():
            raise RuntimeError("a folded AudioVAE cannot be moved or cast: do that before folding")
        return self if self.folded else super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    @contextmanager
    def _exactly(self) -> Iterator[None]:
        """In the type of the weights even under autocast; without gradients once folded."""
        gradients = torch.is_grad_enabled() and not self.folded
        with torch.autocast(self.device.type, enabled=False), torch.set_grad_enabled(gradients):
            yield

    def _padded(self, wave: Tensor) -> Tensor:
        return F.pad(wave.to(self.dtype), (0, -wave.shape[-1] % self.config.hop))

    def _bucket(self, sample_rate: int | Tensor | None) -> Tensor:
        rate = self.config.out_sample_rate if sample_rate is None else sample_rate
        rates = torch.as_tensor(rate, device=self.device).reshape(-1)
        if not rates.is_meta and bool((rates < 1).any()):
            raise ConfigError(f"a sample rate must be positive, got {rates.tolist()}")
        return bucket_of(rates, self.decoder.sr_bin_boundaries)

    def _noise(self, noise: NoiseSource | torch.Generator | None) -> NoiseSource:
        if noise is not None and not isinstance(noise, torch.Generator):
            return noise
        device, dtype = self.device, self.dtype
        return lambda batch, steps: torch.randn(
            batch, steps, generator=noise, device=device, dtype=dtype
        )


class DecoderStream:
    """One running decoding, or a batch of them in step."""

    def __init__(
        self, decoder: FoldedDecoder, bucket: Tensor, noise: NoiseSource, dtype: torch.dtype
    ) -> None:
        self._decoder = decoder
        self._bucket = bucket
        self._noise = noise
        self._dtype = dtype
        self._state: State = {}

    @torch.no_grad()
    def decode(self, chunk: Tensor) -> Tensor:
        """The next latent frames, (B, D, f) with f >= 1 -> their samples, (B, 1, f · out_hop)."""
        with torch.autocast(chunk.device.type, enabled=False):
            return self._decoder(chunk.to(self._dtype), self._bucket, self._noise, self._state)
