"""The shipped profiles resolve, and what only a cluster has is asked for only there."""

import pytest

from jobs.curate import curate_phase, model_names
from jobs.encode import encode_phase
from jobs.settings import Settings
from pipeline.engine import pools_of
from pipeline.profile import load_profile, shipped_profiles
from schemas.errors import ConfigError


def test_both_profiles_are_shipped() -> None:
    assert shipped_profiles() == ["cluster", "embedded"]


def test_the_embedded_profile_is_one_pool_without_gpu() -> None:
    config = load_profile("embedded", [], Settings)
    assert [name for name, _ in pools_of(curate_phase(config))] == ["cpu"]
    assert not any(pool.num_gpus for pool in config.engine.pools.values())
    assert dict(model_names(config))["speaker"] == "ge2e"


def test_the_cluster_profile_gives_the_recogniser_gpus_and_fuses_the_rest() -> None:
    config = load_profile("cluster", [], Settings)
    pools = [(name, [stage.name for stage in s]) for name, s in pools_of(curate_phase(config))]
    assert pools == [
        ("cpu", ["vad", "segmentation", "signal"]),
        ("gpu", ["transcription"]),
        ("cpu", ["alignment", "edges", "text_checks", "dnsmos", "speaker", "encoding"]),
    ]
    assert config.engine.pools["gpu"].num_gpus > 0
    assert config.transcription.device == "cuda"


def test_the_cluster_profile_encodes_on_the_gpu_what_cpus_have_decoded() -> None:
    config = load_profile("cluster", [], Settings)
    phase = encode_phase(config.latents, "checkpoint", "hash", config.engine.placement)
    pools = [(name, [stage.name for stage in stages]) for name, stages in pools_of(phase)]
    assert pools == [("cpu", ["hearing"]), ("gpu", ["latents"])]
    assert config.latents.device == "cuda"
    embedded = load_profile("embedded", [], Settings)
    assert embedded.latents.device == "cpu"
    assert embedded.encode.unit_s == 600


def test_a_stage_that_does_not_exist_cannot_be_placed() -> None:
    with pytest.raises(ConfigError, match="stages that do not exist"):
        load_profile("cluster", ["engine.placement.transcribe=gpu"], Settings)
