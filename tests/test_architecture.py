"""The rooms and who may visit whom, read from the imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "schemas": set(),
    "model_core": {"schemas"},
    "annotators": {"schemas", "model_core"},
    "stages": {"schemas", "annotators", "stages.base"},
    "pipeline": {"schemas", "stages.base"},
    "jobs": {"schemas", "model_core", "annotators", "stages", "pipeline"},
}
RAY_MAY_LIVE_IN = {"pipeline", "jobs"}


def imports_of(source: str) -> set[str]:
    """Every module that a file imports, in any scope."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def violations(room: str, source: str) -> set[str]:
    """What a file of `room` imports against the table."""
    bad = set()
    for module in imports_of(source):
        top = module.partition(".")[0]
        if top == "ray" and room not in RAY_MAY_LIVE_IN:
            bad.add(module)
        if top == "tests" or (top == room and room != "stages"):
            if top == "tests":
                bad.add(module)
            continue
        if top not in MAY_IMPORT:
            continue
        allowed = MAY_IMPORT[room]
        parts = module.split(".")
        prefixes = {".".join(parts[: n + 1]) for n in range(len(parts))}
        # `from stages import base` names both `stages` and `stages.base`.
        names_a_door = any(door.startswith(f"{module}.") for door in allowed)
        if not prefixes & allowed and not names_a_door:
            bad.add(module)
    return bad


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_imports_point_one_way(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"no files in {room}"
    bad = {
        str(path.relative_to(ROOT)): found
        for path in files
        if (found := violations(room, path.read_text(encoding="utf-8")))
    }
    assert not bad


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("schemas", "import stages.vad"),
        ("annotators", "def f():\n    import ray"),
        ("stages", "from stages.signal import Signal"),
        ("stages", "from pipeline.storage import Corpus"),
        ("pipeline", "from stages.vad import Vad"),
        ("pipeline", "import annotators"),
        ("jobs", "from tests import conftest"),
    ],
)
def test_a_wrong_direction_is_seen(room: str, source: str) -> None:
    assert violations(room, source)


def test_the_doors_are_open() -> None:
    assert not violations("pipeline", "from stages.base import Stage\nimport ray")
    assert not violations("stages", "from stages.base import Stage\nfrom annotators.dnsmos import x")
