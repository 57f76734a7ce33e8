"""All that a run holds, how it is put away, and how it is taken up again."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from model_core.audio_vae import AudioVAE
from model_core.checkpoint import default_dtype, save_checkpoint
from model_core.lora import add_lora, save_lora, select_trainable
from model_core.training.config import BOUND, TrainerConfig
from model_core.training.flops import peak_flops
from model_core.training.listening import speak_lines
from model_core.training.log import RunLog
from model_core.training.masters import Masters, MovingAverage
from model_core.training.optimizer import adamw
from model_core.training.packs import START, Pack, Position, Skipped
from model_core.training.parallel import World, spread
from model_core.training.schedule import scheduler
from model_core.training.snapshot import gathered, plain_copy
from model_core.training.state import Checkpoints, Saved, check_settings, write_facts, write_tensors
from model_core.training.step import PackLoss
from model_core.training.tally import Tally, means
from model_core.training.validation import validated
from model_core.transformer import Block, Transformer
from model_core.voxcpm import VoxCPM
from schemas.errors import ConfigError
from schemas.samples import LAYOUTS

logger = logging.getLogger(__name__)

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Run:
    """A model in training. Every worker has one, and calls the same methods in the same order."""

    def __init__(
        self, model: VoxCPM, vae: AudioVAE, base: Path, config: TrainerConfig, folder: Path
    ) -> None:
        """Takes the run in `folder` up again where there is one. base: what the model came from.

        Raises ConfigError naming a setting that has changed since the run began.
        """
        self.config, self.folder, self.base = config, folder, base
        self.world, self.device = World.here(), model.device
        self.model, self.vae = model, vae
        self._settings = {
            "training": {name: asdict(config)[name] for name in BOUND},
            "model": model.config.to_dict(),
            "workers": {"number": self.world.size},
        }
        self.checkpoints = Checkpoints(folder)
        saved = self.checkpoints.newest()
        if saved is not None:
            check_settings(saved, self._settings)
            if saved.step > config.steps:
                raise ConfigError(
                    f"the run in {folder} is at step {saved.step} already, and {config.steps} "
                    "steps are asked for"
                )
        torch.manual_seed(config.seed)  # of new adapters, alike on all workers
        self._build()
        torch.manual_seed(config.seed + self.world.rank)  # of dropout, different on each
        self.step, self.position, self.refused = 0, START, 0
        if saved is not None:
            self._restore(saved)
        if self.world.rank == 0:
            self.checkpoints.tidy()
        self.world.wait()
        self.schedule = scheduler(
            self.optimizer, config.schedule, steps=config.steps, step=self.step
        )
        self.log = RunLog(folder, step=self.step, silent=self.world.rank != 0)
        self.peak = peak_flops(self.device, self.dtype)
        self._skipped: list[Skipped] = []

    def _build(self) -> None:
        config, model = self.config, self.model
        chosen = {"auto": default_dtype(self.device), "bf16": torch.bfloat16, "fp32": torch.float32}
        self.dtype = chosen[config.precision]
        """Of the arithmetic."""
        half = torch.bfloat16 if self.dtype == torch.bfloat16 else None
        model.float().train()
        if config.lora is not None:
            add_lora(model, config.lora)
        select_trainable(model, config.mode)
        for part in model.modules():
            if isinstance(part, Transformer):
                part.checkpointing = config.checkpoint_activations
            if isinstance(part, Block) and config.compile:
                part.compile(dynamic=True)
        several = self.world.size > 1
        autocast = half if several and config.parallel == "ddp" else None
        self.loss = PackLoss(model, autocast=autocast, reading=config.lambda_reading > 0)
        copied = None if several else half
        if copied is not None:
            self.masters = Masters(model, copy_dtype=copied)
        self.module = spread(self.loss, config.parallel, self.world, half)
        if copied is None:
            self.masters = Masters(model, copy_dtype=None)  # after the tensors were parted
        self.optimizer = adamw(self.masters, config.optimizer)
        self.average = (
            None if config.ema_decay is None else MovingAverage(self.masters, config.ema_decay)
        )
        self.tally = Tally(model.config, self.device, frozen=config.mode == "lora")
        self._since_save = torch.zeros(len(LAYOUTS), 3, dtype=torch.float64, device=self.device)

    @property
    def loss_weights(self) -> tuple[float, float]:
        """Of the flow and stop loss."""
        return self.config.lambda_flow, self.config.lambda_stop

    def count(self, rows: list[Any], table: Tensor, seconds: float) -> None:
        """A step that was taken, or only its time and samples where `table` is all zero."""
        self.tally.add(rows, table, seconds)
        self._since_save += table
        for row in rows:
            self._skipped += row.pack.skipped
            for sample in row.pack.skipped:
                logger.warning("sample %s was left out: %s", sample.sample_id, sample.reason)

    def tell(self, *, lr: float, grad_norm: float) -> dict[str, Any]:
        """Write the line of a step."""
        vae = self.vae.config
        line = self.tally.summary(
            self.world,
            weights=self.loss_weights,
            patch_s=self.model.config.patch_size * vae.hop / vae.sample_rate,
            budget=self.config.pack_positions,
            peak=self.peak,
        )
        epoch, block, pack = self.position
        line |= {"lr": lr, "grad_norm": grad_norm, "position": [epoch, block, pack]}
        read = self.loss.misread
        if read is not None and read.patches:  # of this worker's last pack
            line["misread"] = float(read.nats.detach()) / read.patches
        self.log.write("step", self.step, **line)
        self._tell_skipped()
        return line

    def _tell_skipped(self) -> None:
        for skipped in self.world.everyones(self._skipped):
            for sample in skipped:
                self.log.write(
                    "skipped", self.step, sample_id=sample.sample_id, reason=sample.reason
                )
        self._skipped = []

    def validate(self, packs: list[Pack], spare: Pack) -> dict[str, float] | None:
        """Mean losses on packs that training never sees; None where there are none."""
        with self.masters.lent(None if self.average is None else self.average.weights):
            found = validated(
                self.loss,
                packs,
                spare,
                self.world,
                seed=self.config.seed,
                dtype=self.dtype,
                weights=self.loss_weights,
            )
        if found is not None:
            self.log.write("validation", self.step, **found)
        return found

    def speak(self) -> None:
        """Say the lines of the config, into samples/step_N/."""
        weights = gathered(self._everything(), self.world)
        if self.world.rank == 0:
            speak_lines(
                plain_copy(self.model, weights, self.config.lora, merged=True),
                self.vae,
                self.base / "tokenizer.json",
                self.config.samples,
                self.folder / "samples" / f"step_{self.step:07d}",
                self.log,
                step=self.step,
                seed=self.config.seed,
                device=self.device,
            )
        self.world.wait()

    def save(self, loss: float | None, *, judged: bool = True) -> None:
        """Write a checkpoint.

        loss: of the validation, which decides whether it is the best; None takes the mean loss of
        training since the checkpoint before. judged: False keeps it from being the best.
        """
        self._tell_skipped()
        sums = self.world.sum(self._since_save.clone()).cpu().sum(dim=0)
        if loss is None and sums[2] > 0:
            loss = means(sums, self.loss_weights)["loss"]
        first = self.world.rank == 0
        aside = self.checkpoints.aside(self.step) if first else self.folder
        trained = self._used() if self.config.lora is not None else self._everything()
        used = gathered(trained, self.world)
        if first:
            self._write_for_use(aside, used)
        del used
        for name, source in self._sources().items():
            tensors = gathered(source, self.world)
            if first:
                write_tensors(aside, name, tensors)
        workers = self.world.everyones((self.position, _random_state(self.device)))
        if first:
            states = {
                f"{rank}.{name}": state
                for rank, (_, random) in enumerate(workers)
                for name, state in random.items()
            }
            write_tensors(aside, "random", states)
            facts = {
                "step": self.step,
                "loss": loss if judged else None,
                "positions": [list(position) for position, _ in workers],
                "tally": self.tally.state(),
                "settings": self._settings,
            }
            write_facts(aside, facts)
            self.checkpoints.publish(self.step)
        self._since_save.zero_()
        self.refused = 0
        self.world.wait()

    def _used(self) -> dict[str, Tensor]:
        """The trained weights as they are for use: averaged where there is an average."""
        return dict(self.masters.weights) if self.average is None else self.average.weights

    def _everything(self) -> dict[str, Tensor]:
        """`_used`, and what is not trained."""
        return {**dict(self.model.named_parameters()), **self._used()}

    def _sources(self) -> dict[str, dict[str, Tensor]]:
        """What goes into the files of training/, by file."""
        state = self.optimizer.state
        sources = {
            "weights": dict(self.masters.weights),
            "optimizer": {
                f"{name}/{moment}": state[weight][moment]
                for name, weight in self.masters.weights.items()
                if weight in state
                for moment in _MOMENTS
            },
        }
        if self.average is not None:
            sources["average"] = self.average.weights
        return sources

    def _write_for_use(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """What `voxquarry speak` and the official tools read."""
        if self.config.lora is not None:
            save_lora(folder, weights, self.config.lora, str(self.base.resolve()))
            return
        copy = plain_copy(self.model, weights, None, merged=False)
        save_checkpoint(folder, copy, self.vae, self.base)

    def _restore(self, saved: Saved) -> None:
        self.step = saved.step
        rank = self.world.rank
        self.position = Position(*saved.facts["positions"][rank])
        self.tally.restore(saved.facts["tally"] if rank == 0 else None)
        weights = saved.tensors("weights")
        for name, weight in self.masters.weights.items():
            _take(weight, weights[name])
        self.masters.refresh()
        moments = saved.tensors("optimizer")
        for name, weight in self.masters.weights.items():
            if f"{name}/step" not in moments.names:
                continue
            state = {"step": moments[f"{name}/step"].to(self.device)}
            for moment in _MOMENTS[1:]:
                state[moment] = torch.zeros_like(weight)
                _take(state[moment], moments[f"{name}/{moment}"])
            self.optimizer.state[weight] = state
        if self.average is not None:
            averages = saved.tensors("average")
            for name, average in self.average.weights.items():
                _take(average, averages[name])
        random = saved.tensors("random")
        torch.set_rng_state(random[f"{rank}.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(random[f"{rank}.cuda"], self.device)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


@torch.no_grad()
def _take(tensor: Tensor, value: Tensor) -> None:
    """Put a whole tensor into one that may be a part of it."""
    if isinstance(tensor, DTensor):
        value = value.to(tensor.device)
        parted = distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None)
        tensor.to_local().copy_(parted.to_local())
    else:
        tensor.copy_(value)
