"""Ray Data runs a phase: a block of units in, the same block committed, block after block.

Ray does the scheduling, the actors and the retries. The commit is ours (`pipeline.storage`),
because one unit fills several tables at once: the plan minus what is committed is what a run
still has to do, so a resumed run needs no checkpoint of Ray's own.
"""

import logging
import os
import pickle
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, ExecutionResources
from ray.exceptions import RayError

from pipeline.capacity import HELPERS, PoolConfig, room_for, worker_bounds
from pipeline.ledger import UnitRecord
from pipeline.shelf import Shelf
from pipeline.storage import Corpus
from pipeline.work import Phase, Unit
from pipeline.worker import PoolWorker
from schemas.errors import (
    ConfigError,
    ModelLoadError,
    StorageError,
    TooManyFailures,
    VoxquarryError,
)
from stages.base import Stage

logger = logging.getLogger(__name__)

# One-thread processes beat threads for these models: small matrices spend their time waiting.
# A stage that wants more for its own model says so in its config.
ONE_THREAD = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "RAYON")
} | {"POLARS_MAX_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

# The driver holds every block of a dataset until it ends, so a long run is several datasets of so many.
# Workers start anew with each, which must stay a small part of their time.
BLOCKS_AT_ONCE = 20_000
BLOCKS_PER_WORKER = 200

# Names of more stages than this are told by the first and the last.
MOST_NAMED = 3

# Below this many finished items a high share of failures says little about the pipeline.
FEWEST_TO_JUDGE = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """How a phase runs on a machine or a cluster."""

    pools: Mapping[str, PoolConfig] = field(default_factory=lambda: {"cpu": PoolConfig()})
    placement: Mapping[str, str] = field(default_factory=dict)
    """Stage → pool; what is not named runs in `cpu`."""
    units_per_commit: int = 1
    """Units written as one part file. More means larger files, and more to redo after a crash."""
    max_failed_share: float = 0.5
    """The run stops when more than this share of items went to quarantine."""
    object_store_mb: int | None = 512
    """Shared memory of a Ray that is started here; null leaves it to Ray."""
    between_pools_mb: int | None = None
    """Shared memory of all nodes for units between two pools: beyond it earlier pools wait, so
    that nothing need be spilled. Null leaves it to Ray Data, which takes half of what there is."""

    def __post_init__(self) -> None:
        if "cpu" not in self.pools:
            raise ConfigError("engine.pools needs a pool named cpu")
        unknown = sorted(set(self.placement.values()) - set(self.pools))
        if unknown:
            raise ConfigError(f"engine.placement names pools that do not exist: {unknown}")
        if self.between_pools_mb is not None and self.between_pools_mb < 1:
            raise ConfigError(f"between_pools_mb must be positive, got {self.between_pools_mb}")
        if self.units_per_commit < 1 or not 0 < self.max_failed_share <= 1:
            raise ConfigError("units_per_commit >= 1 and 0 < max_failed_share <= 1 are needed")


@contextmanager
def ray_session(config: EngineConfig) -> Iterator[float]:
    """A connected Ray; yields the seconds that it took. Joins RAY_ADDRESS, else starts its own.

    Raises `ConfigError` where the cluster cannot be joined.
    """
    started = time.perf_counter()
    mine = not ray.is_initialized()
    if mine:
        # Messages that only concern Ray's developers would drown the progress bar; what ends a
        # run is raised, and Ray's own log files keep the rest.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        common: dict[str, Any] = {
            "logging_level": logging.ERROR,
            "log_to_driver": False,
        }
        with quiet_start():
            _start_ray(config, common)
    try:
        yield time.perf_counter() - started
    finally:
        if mine:
            ray.shutdown()


def _start_ray(config: EngineConfig, common: dict[str, Any]) -> None:
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            ray.init(runtime_env={"env_vars": ONE_THREAD}, **common)
        except (ConnectionError, RuntimeError, RayError) as error:
            raise ConfigError(
                f"cannot join the Ray cluster at {address} (RAY_ADDRESS): it is not there, or wants "
                "its token (RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN)"
            ) from error
        return
    # Workers inherit this; a runtime_env would start each of them twice.
    os.environ.update(ONE_THREAD)
    memory = config.object_store_mb
    ray.init(
        # Without it, a Ray that somebody else started on this machine would be joined.
        address="local",
        # More logical CPUs than cores.
        num_cpus=(os.cpu_count() or 1) + HELPERS,
        include_dashboard=False,
        object_store_memory=memory * 2**20 if memory else None,
        **common,
    )


@contextmanager
def quiet_start() -> Iterator[None]:
    """Keep what Ray's C++ side writes while it starts off the terminal; errors are raised."""
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def pools_of(phase: Phase) -> list[tuple[str, list[Stage[Any]]]]:
    """Neighbouring stages on the same pool, fused: [(pool name, stages)]."""
    placed = [(phase.placement.get(stage.name, "cpu"), stage) for stage in phase.stages]
    return [(pool, [s for _, s in group]) for pool, group in groupby(placed, key=lambda p: p[0])]


def pool_title(phase: Phase, pool: str, stages: Sequence[Stage[Any]]) -> str:
    """What Ray's dashboard and metrics call a pool: `curate gpu: transcription+ctc_alignment`."""
    names = [stage.name for stage in stages]
    # No dots: Ray takes what stands before the last one for a module.
    named = "+".join(names) if len(names) <= MOST_NAMED else f"{names[0]} to {names[-1]}"
    return f"{phase.name} {pool}: {named}"


def bounds_of(phase: Phase, config: EngineConfig) -> list[tuple[int, int]]:
    """Fewest and most workers of each of the phase's pools on the connected Ray.

    Raises `ConfigError` where a pool would wait for its first one for ever.
    """
    pools = [(name, config.pools[name]) for name, _ in pools_of(phase)]
    room = room_for(pools, phase.name)
    return worker_bounds([pool for _, pool in pools], *room)


def longest_first(units: Iterable[Unit]) -> Shelf[Unit]:
    """Units in the order to run them, so that no worker is left alone with a long one at the end."""
    return Shelf(((-unit.duration_s, unit.unit_id), unit) for unit in units)


def run_units(
    phase: Phase, units: Iterable[Unit], corpus: Corpus, config: EngineConfig
) -> Iterator[UnitRecord]:
    """Run units in about their order and yield each as it is committed.

    Raises `ConfigError` where Ray has too little room, `ModelLoadError` when a stage cannot open
    its model (nothing is marked then), `TooManyFailures` when more than the allowed share went to
    quarantine, and `StorageError` when the corpus cannot be written any more.
    """
    _set_up_ray_data(config)
    waiting = iter(units)
    bounds = bounds_of(phase, config)
    blocks = max(BLOCKS_AT_ONCE, BLOCKS_PER_WORKER * max(most for _, most in bounds))
    done = failed = 0
    while wave := list(islice(waiting, blocks * config.units_per_commit)):
        for record in _run_wave(phase, wave, corpus, config, bounds):
            done += len(record.items)
            failed += sum(item.status == "quarantined" for item in record.items)
            yield record
            if done >= FEWEST_TO_JUDGE and failed / done > config.max_failed_share:
                raise TooManyFailures(_too_many(failed, done, config, record))


def _set_up_ray_data(config: EngineConfig) -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    # One block is one task and one commit, whatever its size.
    context.target_max_block_size = None
    # A worker has one task at a time, so a pool in which all work is as busy as it can be.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    limit = config.between_pools_mb
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        object_store_memory=limit * 2**20 if limit else None
    )


def _run_wave(
    phase: Phase,
    units: Sequence[Unit],
    corpus: Corpus,
    config: EngineConfig,
    bounds: Sequence[tuple[int, int]],
) -> Iterator[UnitRecord]:
    rows = [{"unit": pickle.dumps(unit, protocol=5)} for unit in units]
    num_blocks = -(-len(rows) // config.units_per_commit)
    dataset: Dataset = ray.data.from_items(rows, override_num_blocks=num_blocks)
    groups = pools_of(phase)
    for index, ((pool_name, stages), (fewest, most)) in enumerate(zip(groups, bounds, strict=True)):
        pool = config.pools[pool_name]
        title = pool_title(phase, pool_name, stages)
        dataset = dataset.map_batches(
            # Ray names a pool and its actors after the class.
            type(title, (PoolWorker,), {}),
            fn_constructor_args=(phase, stages),
            fn_constructor_kwargs={
                "first": index == 0,
                "last": index == len(groups) - 1,
                "corpus": corpus.root,
            },
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            # A worker without a block would only cost its start.
            compute=ActorPoolStrategy(
                min_size=min(fewest, num_blocks),
                max_size=min(most, num_blocks),
                max_tasks_in_flight_per_actor=1,
            ),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
        )
    dataset.set_name(phase.name)
    try:
        for batch in dataset.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            assert isinstance(batch, pa.Table)
            for value in batch.column("unit"):
                record: UnitRecord = pickle.loads(value.as_buffer())
                yield record
    except RayError as error:
        raise _ours(error) from error


def _too_many(failed: int, done: int, config: EngineConfig, record: UnitRecord) -> str:
    return (
        f"{failed} of the first {done} items went to quarantine, more than the allowed share of "
        f"{config.max_failed_share:.0%} (engine.max_failed_share); "
        f"the last was in unit {record.unit_id}. The quarantine table has the reasons."
    )


def _ours(error: RayError) -> VoxquarryError | RayError:
    """The error of ours inside Ray's, if that is what ended the run."""
    cause: BaseException | None = error
    while cause is not None:
        for kind in (StorageError, ModelLoadError):
            if isinstance(cause, kind):
                return kind(str(cause).splitlines()[0])
        cause = cause.__cause__ or getattr(cause, "cause", None)
    for line in str(error).splitlines():
        for kind in (StorageError, ModelLoadError):
            if f"{kind.__name__}: " in line:
                return kind(line.split(f"{kind.__name__}: ", 1)[1])
    return error
