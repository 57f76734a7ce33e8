"""The training loop."""

import logging
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import torch

from model_core.audio_vae import AudioVAE
from model_core.losses import Losses
from model_core.training.config import TrainerConfig
from model_core.training.optimizer import clip, norm_of
from model_core.training.parallel import gradients_of
from model_core.training.run import Run
from model_core.training.step import Row, draws_for, heard_for, row_of
from model_core.training.stream import PackStream
from model_core.training.tally import loss_table
from model_core.voxcpm import VoxCPM
from schemas.errors import Diverged

logger = logging.getLogger(__name__)

_MOST_REFUSED = 2
"""Steps whose numbers are not finite, between two checkpoints, of which the last ends the run."""


class Step(NamedTuple):
    """What a step has shown, of this worker's packs."""

    step: int
    steps: int
    """Of the whole run."""
    loss: float
    """Mean over the step's target patches of all workers."""
    positions_per_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    step: int
    finished: bool
    """It took its last step; else it was asked to stop before, and `last` is how far it came."""
    last: Path
    best: Path | None
    """Checkpoint with the lowest loss on validation (or, without any, in training)."""
    best_loss: float | None


def train(
    model: VoxCPM,
    vae: AudioVAE,
    base: Path,
    stream: PackStream,
    config: TrainerConfig,
    folder: Path,
    *,
    progress: Callable[[Step], None] | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Outcome:
    """Train a model, in place, and leave checkpoints and a log in `folder`.

    A folder that holds a run is gone on with, at the exact sample. Several workers call this alike,
    each with its own stream, after they have joined `torch.distributed`.

    model, vae: as loaded from `base`, a checkpoint folder, whose tokenizer is saved beside them; on
    the device to train on. stopped: asked after each step; True ends
    the run there, as SIGTERM does. Raises
    ConfigError when `folder` holds a run of other settings, ModelLoadError when its checkpoint is
    damaged, and Diverged when the loss is not finite a second time since the last checkpoint.
    """
    run = Run(model, vae, base, config, folder)
    world, device = run.world, run.device
    with closing(run.log), interruptions() as terminated:
        interrupted = False
        packs = stream.packs(run.position)
        held_out = list(stream.validation())
        begun = time.perf_counter()
        upcoming = (
            [next(packs) for _ in range(config.accumulate)] if run.step < config.steps else []
        )
        while run.step < config.steps and not interrupted:
            rows = [row_of(pack, device, run.dtype) for pack in upcoming]
            own = sum(row.num_targets for row in rows)
            # Losses are means over the targets of all packs of all workers, however they are spread.
            count = world.sum(torch.tensor(own, device=device)).clamp(min=1)
            found: list[Losses] = []
            for row in rows:
                with gradients_of(run.module, last=row is rows[-1]):
                    seed, done = (config.seed, run.step), run.step / config.steps
                    draws = draws_for(row, model, seed, done, pure_noise=config.pure_noise)
                    heard = None
                    if config.noisy_history:
                        heard = heard_for(row, seed, config.noisy_history)
                    flow, halt = run.module(row, draws, heard)
                    total = config.lambda_flow * flow.sum() + config.lambda_stop * halt.sum()
                    if run.loss.misread is not None:
                        total = total + config.lambda_reading * run.loss.misread.nats
                    (total * (world.size / count)).backward()
                    found.append(Losses(flow.detach(), halt.detach()))
            run.step += 1
            run.position = rows[-1].pack.after
            if run.step < config.steps:  # read while the device is at work
                upcoming = [next(packs) for _ in range(config.accumulate)]

            norm = norm_of(run.masters.grads())
            table = loss_table(rows, found, device)
            shared = torch.cat(
                (
                    table.sum(dim=0),
                    table.new_tensor(
                        [float(terminated.is_set() or (stopped is not None and stopped()))]
                    ),
                )
            )
            flow_sum, stop_sum, targets, stops = world.sum(shared).tolist()
            grad_norm = float(norm)
            loss = run.config.lambda_flow * flow_sum + run.config.lambda_stop * stop_sum
            loss /= max(1.0, targets)
            lr = run.schedule.get_last_lr()[0]
            finite = math.isfinite(loss) and math.isfinite(grad_norm)
            if finite:
                clip(run.masters, grad_norm, config.optimizer.clip_norm)
                run.optimizer.step()
                run.masters.refresh()
                if run.average is not None:
                    run.average.update()
            run.masters.clear()
            with warnings.catch_warnings():
                # The rate goes by the number of the step, also past one that was not taken.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                run.schedule.step()
            now = time.perf_counter()
            seconds, begun = now - begun, now
            run.count(rows, table if finite else torch.zeros_like(table), seconds)
            interrupted = stops > 0
            if not finite:
                _refuse(run, rows, found, (flow_sum, stop_sum), grad_norm)
            if progress is not None:
                positions = sum(len(row.pack) for row in rows)
                progress(Step(run.step, config.steps, loss, positions / max(seconds, 1e-9)))

            if run.step % config.log_every == 0:
                run.tell(lr=float(lr), grad_norm=grad_norm)
            saves = run.step % config.save_every == 0 or run.step == config.steps
            judged = None
            if saves or run.step % config.validate_every == 0:
                judged = run.validate(held_out, rows[-1].pack)
            if config.sample_every and run.step % config.sample_every == 0 and config.samples:
                run.speak()
            if saves:
                run.save(None if judged is None else judged["loss"])
            elif interrupted:
                run.save(None, judged=False)  # whoever asks to stop may not wait for a validation
            begun += time.perf_counter() - now  # the pace is that of training alone
        newest, best = run.checkpoints.newest(), run.checkpoints.best()
        assert newest is not None, "the last step of a run is saved"
        return Outcome(
            run.step,
            run.step == config.steps,
            newest.folder,
            None if best is None else best.folder,
            None if best is None else best.loss,
        )


def _refuse(
    run: Run, rows: list[Row], found: list[Losses], sums: tuple[float, float], grad_norm: float
) -> None:
    """Tell of a step that was not taken; raises Diverged when it is one too many."""
    guilty: list[str] = []
    all_ids: list[str] = []
    for row, losses in zip(rows, found, strict=True):
        bad = ~(losses.flow + losses.stop).isfinite().cpu()
        guilty += [row.pack.sample_ids[i] for i in sorted(set(row.owners[bad].tolist()))]
        all_ids += row.pack.sample_ids
    shared = run.world.everyones((guilty, all_ids))
    # Finite losses with a gradient that is not: any sample may be at fault.
    ids = [i for bad, _ in shared for i in bad] or [i for _, every in shared for i in every]
    shown = ", ".join(ids[:20]) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "")
    what = (
        f"step {run.step}: flow loss {sums[0]:g}, stop loss {sums[1]:g} (sums over target patches), "
        f"norm of the gradient {grad_norm:g}; samples: {shown}"
    )
    logger.warning("not finite, and not applied: %s", what)
    run.log.write(
        "not_finite",
        run.step,
        flow=sums[0],
        stop=sums[1],
        grad_norm=grad_norm,
        sample_ids=ids,
    )
    run.refused += 1
    if run.refused >= _MOST_REFUSED:
        raise Diverged(
            f"training stops: the loss or its gradient was not finite {run.refused} times since "
            f"the last checkpoint; {what}"
        )


@contextmanager
def interruptions() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, as long as the main thread is in here."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(_: int, __: FrameType | None) -> None:
        event.set()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
