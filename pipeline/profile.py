"""Profiles: YAML that fills a frozen config, `--set stage.field=value` on top, nothing unknown.

A profile may name another under `extends`; its own values win. The shipped ones lie in
`pipeline/profiles`.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from schemas.errors import ConfigError

Config = TypeVar("Config")
SHIPPED = Path(__file__).parent / "profiles"


def shipped_profiles(folder: Path = SHIPPED) -> list[str]:
    """Names that `--profile` knows without a file."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_profile(
    name: str,
    overrides: Iterable[str],
    config: type[Config],
    *,
    folder: Path = SHIPPED,
    what: str = "profile",
) -> Config:
    """Resolve a shipped name or a YAML file, and overrides, into `config`.

    folder: where the shipped ones lie. what: how messages call them.
    Raises `ConfigError` for an unknown name, an unknown key (with the nearest known one) or a
    value of the wrong type or range.
    """
    values = _read(name, folder, what, seen=())
    for override in overrides:
        _set(values, override)
    check_keys(config, values, where=name)
    try:
        return TypeAdapter(config).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{what} {name}: {place}: {first['msg']}") from error


def as_plain(config: Any) -> dict[str, Any]:
    """A resolved config as plain values, for the run record."""
    plain: dict[str, Any] = asdict(config)
    return plain


def check_keys(config: Any, values: Any, where: str) -> None:
    """Raise `ConfigError` at the first key that `config` does not have."""
    if not is_dataclass(config) or not isinstance(values, Mapping):
        return
    hints = get_type_hints(config)
    known = [field.name for field in fields(config)]
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{where}: unknown setting {key}; {advice}")
        hint = hints[key]
        if get_origin(hint) is Mapping and isinstance(value, Mapping):
            for name, item in value.items():
                check_keys(get_args(hint)[1], item, f"{where}: {key}.{name}")
        else:
            check_keys(hint, value, f"{where}: {key}")


def _read(name: str, folder: Path, what: str, seen: tuple[str, ...]) -> dict[str, Any]:
    path = Path(name)
    if not path.suffix:
        path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(shipped_profiles(folder))
        raise ConfigError(f"no {what} {name}: neither a file nor one of {known}")
    if name in seen:
        raise ConfigError(f"{what} {name} extends itself")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{what} {name} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{what} {name}: expected settings by stage, got {type(values).__name__}")
    base = values.pop("extends", None)
    return _merge(_read(str(base), folder, what, (*seen, name)), values) if base else values


def _merge(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, Mapping)
        merged[key] = _merge(below, value) if both and below is not None else value
    return merged


def _set(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set wants stage.field=value, got {override!r}")
    *parents, last = path.strip().split(".")
    place = values
    for parent in parents:
        below = place.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {override}: {parent} is a value, not a group of settings")
        place = below
    place[last] = yaml.safe_load(text)
