"""The shipped profiles resolve, and what only a cluster has is asked for only there."""

from pathlib import Path

import pytest
import soundfile as sf
from rich.console import Console

from jobs.clone import Maker, clone_phase
from jobs.curate import curate_phase, model_names
from jobs.encode import encode_phase
from jobs.run_curate import explain
from jobs.settings import Settings
from pipeline.capacity import PoolConfig, worker_bounds, worker_counts
from pipeline.engine import pool_title, pools_of
from pipeline.profile import load_profile, shipped_profiles
from pipeline.run_record import RunRecord
from pipeline.storage import Corpus
from schemas.errors import ConfigError

CLUSTERS = ("cluster", "cluster-1-gpu", "cluster-8-gpus", "cluster-many")


def bounds(profile: str, cpus: int, gpus: int) -> dict[str, tuple[int, int]]:
    """The curate phase's pools on a cluster of this size: title → fewest and most workers."""
    config = load_profile(profile, [], Settings)
    phase = curate_phase(config)
    groups = pools_of(phase)
    found = worker_bounds([config.engine.pools[name] for name, _ in groups], cpus, gpus)
    return {pool_title(phase, *group): pair for group, pair in zip(groups, found, strict=True)}


def test_every_profile_is_shipped() -> None:
    assert shipped_profiles() == [*CLUSTERS, "embedded"]


@pytest.mark.parametrize("name", CLUSTERS)
def test_cluster_profiles_differ_in_size_alone(name: str) -> None:
    base, config = (load_profile(one, [], Settings) for one in ("cluster", name))
    assert model_names(config) == model_names(base)
    assert config.engine.placement == base.engine.placement
    for both in (("gpu", "separation"), ("speaking", "judging")):
        assert sum(config.engine.pools[pool].num_gpus for pool in both) <= 1


def test_one_gpu_has_room_for_every_pool_of_curate() -> None:
    assert bounds("cluster-1-gpu", 8, 1) == {
        "curate cpu: music": (1, 12),
        "curate separation: separation": (1, 4),
        "curate cpu: vad to signal": (1, 12),
        "curate gpu: transcription+ctc_alignment": (1, 2),
        "curate cpu: alignment to encoding": (1, 12),
    }


def test_eight_gpus_all_get_a_recogniser_at_once() -> None:
    found = bounds("cluster-8-gpus", 96, 8)
    assert found["curate gpu: transcription+ctc_alignment"] == (8, 32)
    assert found["curate separation: separation"] == (2, 32)
    assert found["curate cpu: music"] == (4, 94)


def test_a_cluster_that_grows_is_not_sized_by_what_it_starts_with() -> None:
    small, large = bounds("cluster-many", 4, 0), bounds("cluster-many", 900, 64)
    assert small == large
    assert all(fewest == 1 for fewest, _ in small.values())
    assert small["curate gpu: transcription+ctc_alignment"] == (1, 128)


def test_pools_that_may_grow_cannot_start_above_their_bound() -> None:
    with pytest.raises(ConfigError, match=r"min_workers must be in \[1, workers\]"):
        PoolConfig(workers=2, min_workers=3)


def test_the_embedded_profile_is_one_pool_without_gpu() -> None:
    config = load_profile("embedded", [], Settings)
    assert [name for name, _ in pools_of(curate_phase(config))] == ["cpu"]
    assert not any(pool.num_gpus for pool in config.engine.pools.values())
    assert dict(model_names(config))["speaker"] == "ge2e"


def test_the_cluster_profile_gives_its_dear_models_gpus_and_fuses_the_rest() -> None:
    config = load_profile("cluster", [], Settings)
    pools = [(name, [stage.name for stage in s]) for name, s in pools_of(curate_phase(config))]
    assert pools == [
        ("cpu", ["music"]),
        ("separation", ["separation"]),
        ("cpu", ["vad", "segmentation", "residue", "signal"]),
        ("gpu", ["transcription", "ctc_alignment"]),
        ("cpu", ["alignment", "edges", "text_checks", "dnsmos", "speaker", "encoding"]),
    ]
    assert config.engine.pools["gpu"].num_gpus > 0
    assert config.engine.pools["separation"].num_gpus > 0
    assert config.transcription.device == config.separation.device == "cuda"


def test_nothing_is_separated_by_ear_without_an_ear() -> None:
    for bare in ("off", "always"):
        load_profile("embedded", ["music.model=null", f"separation.mode={bare}"], Settings)
    with pytest.raises(ConfigError, match=r"needs a music\.model"):
        load_profile("embedded", ["music.model=null", "separation.mode=auto"], Settings)


def test_the_cluster_profile_encodes_on_the_gpu_what_cpus_have_decoded() -> None:
    config = load_profile("cluster", [], Settings)
    phase = encode_phase(config.latents, "checkpoint", "hash", config.engine.placement)
    pools = [(name, [stage.name for stage in stages]) for name, stages in pools_of(phase)]
    assert pools == [("cpu", ["hearing"]), ("gpu", ["latents"])]
    assert config.latents.device == "cuda"
    embedded = load_profile("embedded", [], Settings)
    assert embedded.latents.device == "cpu"
    assert embedded.encode.unit_s == 600


def test_the_cluster_profile_speaks_and_judges_on_the_same_gpus_at_once() -> None:
    config = load_profile("cluster", [], Settings)
    maker = Maker(checkpoint="checkpoint", model_hash="hash", watermark="mark")
    groups = pools_of(clone_phase(config, maker, same_encoder=True))
    pools = [(name, [stage.name for stage in stages]) for name, stages in groups]
    assert pools == [("speaking", ["voices", "speaking"]), ("judging", ["marking", "judging"])]
    assert sum(config.engine.pools[name].num_gpus for name, _ in pools) <= 1
    assert (config.speaking.device, config.speaking.dtype) == ("cuda", "bfloat16")
    assert config.transcription.model == "large-v3"
    embedded = load_profile("embedded", [], Settings)
    phase = clone_phase(embedded, maker, same_encoder=True)
    assert [name for name, _ in pools_of(phase)] == ["cpu"]
    assert embedded.speaking.device == "cpu"


def test_a_stage_that_does_not_exist_cannot_be_placed() -> None:
    with pytest.raises(ConfigError, match="stages that do not exist"):
        load_profile("cluster", ["engine.placement.transcribe=gpu"], Settings)


def test_pools_that_share_gpus_have_room_to_start_all_their_workers() -> None:
    pools = load_profile("cluster", [], Settings).engine.pools
    for gpus in (1, 2, 8):
        both = [pools["speaking"], pools["judging"]]
        assert worker_counts(both, cpus=64, gpus=gpus) == [gpus, gpus]
        assert worker_counts([pools["gpu"]], cpus=64, gpus=gpus) == [2 * gpus]


def test_a_dry_run_prices_hours_at_the_rates_of_the_run_before(
    tmp_path: Path, devset: Path
) -> None:
    config = load_profile("embedded", ["cost.cpu_hour=36"], Settings)
    corpus = Corpus(str(tmp_path))
    source = str(devset / "audio" / "en_allison_s1.flac")
    console = Console(record=True, width=120)
    explain(source, str(tmp_path), config, console)
    assert "known once some of it has run" in console.export_text()
    RunRecord(corpus, "curate", {}).finish(
        "finished", audio_s=100.0, run_s=10.0, stage_seconds={"vad": 1.0, "dnsmos": 9.0}
    )
    console = Console(record=True, width=120)
    explain(source, str(tmp_path), config, console)
    # A tenth of a second of a core for each of the file, a hundredth of a unit of money each.
    seconds = sf.info(source).duration * 0.1
    assert f"{seconds * 36 / 3600:.2f}" in console.export_text()
