"""Profiles fill configs, and nothing unknown passes."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.profile import load_profile
from schemas.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Vad:
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(f"threshold must be in (0, 1), got {self.threshold}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    vad: Vad = field(default_factory=Vad)
    workers: int | None = None


@pytest.fixture
def profile(tmp_path: Path) -> str:
    (tmp_path / "base.yaml").write_text("vad: {threshold: 0.4}\nworkers: 3\n")
    top = tmp_path / "top.yaml"
    top.write_text(f"extends: {tmp_path / 'base.yaml'}\nvad: {{threshold: 0.6}}\n")
    return str(top)


def test_overrides_win_over_the_profile_and_the_profile_over_its_base(profile: str) -> None:
    assert load_profile(profile, [], Settings) == Settings(vad=Vad(threshold=0.6), workers=3)
    over = load_profile(profile, ["vad.threshold=0.7", "workers=null"], Settings)
    assert over == Settings(vad=Vad(threshold=0.7))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("vad.treshold=0.7", "did you mean threshold"),
        ("vod.threshold=0.7", "did you mean vad"),
        ("vad.threshold=loud", "vad.threshold"),
        ("vad.threshold=2", "must be in"),
        ("workers.x=1", "is a value"),
        ("workers", "wants stage.field=value"),
    ],
)
def test_a_wrong_setting_is_named(profile: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_profile(profile, [override], Settings)


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="embedded"):
        load_profile("embeded", [], Settings)
