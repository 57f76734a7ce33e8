"""Ray Data runs a phase: a block of units in, the same block committed, block after block.

Ray does the scheduling, the actors and the retries. The commit is ours (`pipeline.storage`),
because one unit fills several tables at once: the plan minus what is committed is what a run
still has to do, so a resumed run needs no checkpoint of Ray's own.
"""

import logging
import os
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError

from pipeline.storage import Corpus, UnitRecord
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
HELPERS = 2
"""CPUs that workers leave free: where Ray's own tasks find none, a run waits for ever."""

# Below this many finished items a high share of failures says little about the pipeline.
FEWEST_TO_JUDGE = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """Worker processes of one kind."""

    workers: int | None = None
    """How many; null means one per core, or one per GPU where a worker needs one."""
    num_cpus: float = 1.0
    """Cores that Ray sets aside per worker."""
    num_gpus: float = 0.0
    """GPUs, or a fraction of one, per worker."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers must be at least 1, got {self.workers}")
        if self.num_cpus <= 0 or self.num_gpus < 0:
            raise ConfigError("num_cpus > 0 and num_gpus >= 0 are needed")

    def size(self, gpus_beside: float = 0.0) -> int:
        """Workers of this pool on the resources that Ray sees.

        gpus_beside: GPUs that one worker of each other pool of the phase takes. Pools that share
        GPUs have as many workers each; else the first would take all, and the others never start.
        """
        if self.workers is not None:
            return self.workers
        if self.num_gpus:
            return max(1, int(_resource("GPU") / (self.num_gpus + gpus_beside) + 1e-6))
        cores = os.cpu_count() or 1
        if os.environ.get("RAY_ADDRESS"):
            cores = int((_resource("CPU") - HELPERS) / self.num_cpus)
        return max(1, cores)


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

    def __post_init__(self) -> None:
        if "cpu" not in self.pools:
            raise ConfigError("engine.pools needs a pool named cpu")
        unknown = sorted(set(self.placement.values()) - set(self.pools))
        if unknown:
            raise ConfigError(f"engine.placement names pools that do not exist: {unknown}")
        if self.units_per_commit < 1 or not 0 < self.max_failed_share <= 1:
            raise ConfigError("units_per_commit >= 1 and 0 < max_failed_share <= 1 are needed")


@contextmanager
def ray_session(config: EngineConfig) -> Iterator[float]:
    """A connected Ray; yields the seconds that it took. Joins RAY_ADDRESS, else starts its own."""
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
    if os.environ.get("RAY_ADDRESS"):
        ray.init(runtime_env={"env_vars": ONE_THREAD}, **common)
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


def run_units(
    phase: Phase, units: Sequence[Unit], corpus: Corpus, config: EngineConfig
) -> Iterator[UnitRecord]:
    """Run units and yield each as it is committed.

    Raises `ModelLoadError` when a stage cannot open its model (nothing is marked then), and
    `TooManyFailures` when more than the allowed share went to quarantine, and `StorageError` when
    the corpus cannot be written any more.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    # One block is one task and one commit, whatever its size.
    context.target_max_block_size = None
    # Longest first, so that no worker is left alone with a long unit at the end.
    ordered = sorted(units, key=lambda unit: (-unit.duration_s, unit.unit_id))
    size = config.units_per_commit
    rows = [{"unit": pickle.dumps(unit, protocol=5)} for unit in ordered]
    num_blocks = -(-len(rows) // size)
    dataset: Dataset = ray.data.from_items(rows, override_num_blocks=num_blocks)
    groups = pools_of(phase)
    gpus = sum(config.pools[name].num_gpus for name, _ in groups)
    for index, (pool_name, stages) in enumerate(groups):
        pool = config.pools[pool_name]
        dataset = dataset.map_batches(
            PoolWorker,
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
                size=min(pool.size(gpus - pool.num_gpus), num_blocks),
                max_tasks_in_flight_per_actor=1,
            ),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
        )
    done = failed = 0
    try:
        for batch in dataset.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            assert isinstance(batch, pa.Table)
            for value in batch.column("unit"):
                record: UnitRecord = pickle.loads(value.as_buffer())
                done += len(record.items)
                failed += sum(item.status == "quarantined" for item in record.items)
                yield record
                if done >= FEWEST_TO_JUDGE and failed / done > config.max_failed_share:
                    raise TooManyFailures(_too_many(failed, done, config, record))
    except RayError as error:
        raise _ours(error) from error


def _resource(kind: str) -> float:
    return float(ray.cluster_resources().get(kind, 0.0))  # type: ignore[no-untyped-call]


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
