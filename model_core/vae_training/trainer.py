"""The training loop of the AudioVAE.

Every draw of step n comes from the seed and n alone, and the learning rate from n alone; so the
weights, the optimizers and the stream's cursor are all that a resumed run needs to go on as if it
had never stopped.

Shapes: B batch, S samples, D latent channels, F latent frames.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model_core.audio_vae import AudioVAE
from model_core.audio_vae.decoder import Decoder, bucket_of
from model_core.vae_training.batches import START, Batch, Cursor, SegmentStream, Skipped, ahead
from model_core.vae_training.checkpoint import weights_of
from model_core.vae_training.conditions import told_by_their_neighbours
from model_core.vae_training.discriminators import Discriminators
from model_core.vae_training.evaluation import Judge, evaluated, means
from model_core.vae_training.losses import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    kl_divergence,
    sampled,
)
from model_core.vae_training.run_folder import RunFolder
from model_core.vae_training.settings import LoopConfig, VAETraining
from model_core.vae_training.spectra import MelDistance
from schemas.errors import ConfigError, Diverged

logger = logging.getLogger(__name__)

MOST_LOST_STEPS = 2
"""Steps in a row whose loss or gradient is not finite; then the training has come apart."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the loop says of itself while it runs."""

    step: int
    losses: dict[str, float]
    """Parts of the loss, the gradients' norms and the speed; empty between two log lines."""
    distance: float | None
    """The mel distance of the held-out clips, where it was just measured."""


def learning_rate(config: LoopConfig, step: int) -> float:
    """Of a step, counted from 0."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "exponential":
        return config.learning_rate * warm * config.decay**step
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))


class VAETrainer:
    """One training of one AudioVAE. Single process, on the device where the model is."""

    def __init__(
        self, vae: AudioVAE, recipe: VAETraining, stream: SegmentStream, folder: RunFolder
    ) -> None:
        """Takes up the state in the folder, if there is one. The AudioVAE is trained in place.

        Raises ModelLoadError for a state that does not open, ConfigError for one of another model.
        """
        if not isinstance(vae.decoder, Decoder):
            raise ConfigError("an AudioVAE that was made ready for inference cannot be trained")
        self.vae, self.recipe, self.stream, self.folder = vae, recipe, stream, folder
        self.decoder, self.config, device = vae.decoder, recipe.training, vae.device
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            self.discriminators = Discriminators(recipe.discriminators).to(device)
        self.mel = MelDistance(recipe.mel, vae.config.out_sample_rate).to(device)
        self.judge = Judge(recipe.mel, vae.config.sample_rate, vae.config.out_sample_rate, device)
        vae.encoder.requires_grad_(not self.config.frozen_encoder)
        self.vae_optimizer = self._optimizer(vae)
        self.discriminators_optimizer = self._optimizer(self.discriminators)
        self.step = 0
        """Steps done."""
        self.cursor: Cursor = START
        self.best: dict[str, Any] = {"distance": math.inf, "step": 0, "adversarial": False}
        self.lost_in_a_row = 0
        num_buckets = len(vae.config.sr_bin_boundaries or ()) + 1
        self.seen = torch.zeros(num_buckets, dtype=torch.int64)
        """Segments per bucket of the condition."""
        self._generator = torch.Generator(device)
        self._take_up(folder.load())

    def train(
        self,
        *,
        tell: Callable[[Told], None] = lambda told: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Go on until the last step, True, or until `stopped` says so, False. Saves in either case.

        Raises Diverged when two steps in a row gave no finite loss; what was saved before stays.
        """
        config, clips = self.config, self.stream.held_out()
        self.folder.open_log(self.step)
        self.vae.train()
        began, audio_s, waited_s = time.perf_counter(), 0.0, 0.0
        batches = ahead(self.stream.batches(self.cursor))
        try:
            with closing(batches):  # type: ignore[type-var]
                while self.step < config.steps and not stopped():
                    asked = time.perf_counter()
                    batch = next(batches).to(self.vae.device)
                    waited_s += time.perf_counter() - asked
                    parts = self._trained(batch)
                    self.step += 1
                    self.cursor = batch.after
                    self._log_skipped(batch.skipped)
                    audio_s += batch.heard.shape[0] * batch.heard.shape[2]

                    last = self.step == config.steps
                    losses: dict[str, float] = {}
                    if last or self.step % config.log_every == 0:
                        elapsed = time.perf_counter() - began
                        losses = {name: value.item() for name, value in parts.items()}
                        losses["learning_rate"] = learning_rate(config, self.step - 1)
                        losses["audio_s_per_s"] = audio_s / self.vae.config.sample_rate / elapsed
                        losses["waiting_share"] = waited_s / elapsed
                        self.folder.write("train", self.step, losses)
                        began, audio_s, waited_s = time.perf_counter(), 0.0, 0.0
                    distance = None
                    if last or self.step % config.validate_every == 0:
                        paused = time.perf_counter()
                        scores = means(evaluated(self.vae, clips, self.judge, perceptual=False))
                        self.folder.write("held_out", self.step, scores)
                        distance = scores["mel"]
                        assert distance is not None
                        self._keep_if_best(distance)
                        began += time.perf_counter() - paused
                    if distance is not None or self.step % config.save_every == 0:
                        self.folder.save(self.state())
                    tell(Told(self.step, losses, distance))
            self.folder.save(self.state())
            done = self.step >= config.steps
            if done:
                self.folder.save_last(self.weights())
            return done
        finally:
            self.folder.close()

    # ------------------------------------------------------------------ one step

    def _trained(self, batch: Batch) -> dict[str, Tensor]:
        """Train both sides on a batch; a side whose loss or gradient is not finite stays as it is.

        Returns the parts of the loss.
        """
        config, weights = self.config, self.recipe.loss
        adversarial = self.step >= config.adversarial_from
        rate = learning_rate(config, self.step)
        self._generator.manual_seed(config.seed * 1_000_003 + self.step)
        _, mean, log_variance = self.vae.posterior(batch.heard)
        latent = sampled(mean, log_variance, self._generator)
        made = self.vae.decode(latent, batch.sample_rates, noise=self._generator)
        parts: dict[str, Tensor] = {}
        finite = True

        if adversarial:
            self.discriminators.requires_grad_(True)
            with self._precision():
                real = self.discriminators(batch.target)
                fake = self.discriminators(made.detach())
                parts["discriminators"] = discriminator_loss(real, fake)
            finite = self._applied(
                parts["discriminators"],
                self.discriminators,
                self.discriminators_optimizer,
                rate,
                config.clip_discriminators,
                parts,
                "discriminators_gradient",
            )

        if finite:
            parts["mel"] = self.mel(made[:, 0], batch.target[:, 0])
            parts["kl"] = kl_divergence(mean, log_variance)
            loss = weights.mel * parts["mel"] + weights.kl * parts["kl"]
            if adversarial:
                # Only the AudioVAE learns from here on: no gradients for the discriminators.
                self.discriminators.requires_grad_(False)
                with self._precision():
                    with torch.no_grad():
                        real = self.discriminators(batch.target)
                    fake = self.discriminators(made)
                    parts["adversarial"] = adversarial_loss(fake)
                    parts["features"] = feature_loss(real, fake)
                loss = loss + weights.adversarial * parts["adversarial"]
                loss = loss + weights.features * parts["features"]
            parts["loss"] = loss
            finite = self._applied(
                loss, self.vae, self.vae_optimizer, rate, config.clip_vae, parts, "vae_gradient"
            )

        if finite:
            self.lost_in_a_row = 0
            buckets = bucket_of(batch.sample_rates, self.decoder.sr_bin_boundaries).cpu()
            self.seen += torch.bincount(buckets, minlength=len(self.seen))
        else:
            self._lost(parts)
        return {name: value.detach() for name, value in parts.items()}

    def _applied(
        self,
        loss: Tensor,
        side: nn.Module,
        optimizer: torch.optim.Optimizer,
        rate: float,
        clip: float,
        parts: dict[str, Tensor],
        name: str,
    ) -> bool:
        """Step one side down its loss; False, and nothing has changed, where that is not finite."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(side.parameters(), clip)
        parts[name] = norm
        if not bool(torch.isfinite(loss.detach()) & torch.isfinite(norm)):
            return False
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        return True

    def _lost(self, parts: dict[str, Tensor]) -> None:
        self.lost_in_a_row += 1
        found = ", ".join(f"{name} {value.item():.4g}" for name, value in parts.items())
        logger.warning("step %d was not applied, it is not finite: %s", self.step + 1, found)
        if self.lost_in_a_row >= MOST_LOST_STEPS:
            raise Diverged(
                f"the loss was not finite in {self.lost_in_a_row} steps in a row, up to step "
                f"{self.step + 1} ({found}); a lower training.learning_rate may help, and "
                f"{self.folder.folder} holds what was saved before"
            )

    def _precision(self) -> torch.autocast:
        device = self.vae.device.type
        lower = self.config.precision == "bf16" and device == "cuda"
        return torch.autocast(device, torch.bfloat16, enabled=lower)

    # ------------------------------------------------------------------ what is kept

    def weights(self) -> dict[str, Tensor]:
        """The AudioVAE's, fit to be used: buckets that nobody taught speak as their neighbours."""
        kept = weights_of(self.vae)
        changed = told_by_their_neighbours(self.decoder, self.seen)
        if not changed:
            return kept
        told = weights_of(self.vae)
        self.vae.load_state_dict(kept)
        return told

    def state(self) -> dict[str, Any]:
        """All that the next step needs."""
        return {
            "step": self.step,
            "cursor": list(self.cursor),
            "stream": self.stream.fingerprint,
            "best": self.best,
            "lost_in_a_row": self.lost_in_a_row,
            "seen": self.seen,
            "vae": self.vae.state_dict(),
            "discriminators": self.discriminators.state_dict(),
            "vae_optimizer": self.vae_optimizer.state_dict(),
            "discriminators_optimizer": self.discriminators_optimizer.state_dict(),
        }

    def _take_up(self, state: dict[str, Any] | None) -> None:
        if state is None:
            return
        try:
            self.vae.load_state_dict(state["vae"])
            self.discriminators.load_state_dict(state["discriminators"])
            self.vae_optimizer.load_state_dict(state["vae_optimizer"])
            self.discriminators_optimizer.load_state_dict(state["discriminators_optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{self.folder.folder} holds the training of another model; delete it or choose "
                "another place"
            ) from error
        self.step, self.best, self.seen = state["step"], state["best"], state["seen"]
        self.lost_in_a_row = state["lost_in_a_row"]
        self.cursor = Cursor(*state["cursor"])
        if state["stream"] != self.stream.fingerprint:
            logger.warning("the corpus or how it is read has changed: a new epoch begins")
            self.cursor = Cursor(epoch=self.cursor.epoch + 1)

    def _keep_if_best(self, distance: float) -> None:
        # Discriminators trade mel distance for naturalness: before and after do not compare.
        adversarial = self.step > self.config.adversarial_from
        if distance < self.best["distance"] or adversarial != self.best["adversarial"]:
            self.best = {"distance": distance, "step": self.step, "adversarial": adversarial}
            self.folder.save_best(self.weights())

    def _log_skipped(self, skipped: Iterable[Skipped]) -> None:
        for clip_id, reason in skipped:
            logger.warning("clip %s is left out: %s", clip_id, reason)
            self.folder.write("skipped", self.step, {"clip_id": clip_id, "reason": reason})

    def _optimizer(self, side: nn.Module) -> torch.optim.Optimizer:
        # What a decoder was told of other rates must not decay while nobody asks for them.
        tables = {
            id(parameter)
            for module in side.modules()
            if isinstance(module, nn.Embedding)
            for parameter in module.parameters()
        }
        kept = [p for p in side.parameters() if id(p) in tables]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in side.parameters() if id(p) not in tables]},
            *([{"params": kept, "weight_decay": 0.0}] if kept else []),
        ]
        config = self.config
        return torch.optim.AdamW(
            groups,
            config.learning_rate,
            config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
