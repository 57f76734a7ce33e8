"""The rooms and who may visit whom, read from the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "schemas": {"schemas"},
    "model_core": {"schemas", "model_core"},
    "annotators": {"schemas", "model_core", "annotators"},
    "stages": {"schemas", "annotators", "stages.base"},
    "pipeline": {"schemas", "stages.base", "pipeline"},
    "jobs": {"schemas", "model_core", "annotators", "stages", "pipeline", "jobs"},
}
RAY_MAY_LIVE_IN = {"pipeline", "jobs"}


def defines_a_stage(path: Path) -> bool:
    """Whether a file of `stages` holds a stage, rather than the maths of one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return any(
        isinstance(item, ast.FunctionDef) and item.name == "process"
        for node in classes
        for item in node.body
    )


MATHS = {
    f"stages.{path.stem}" for path in (ROOT / "stages").glob("*.py") if not defines_a_stage(path)
} - {"stages.__init__"}


def imports_of(source: str) -> set[str]:
    """Every module that a file imports, in any scope; `from a import b` names `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def violations(room: str, source: str) -> set[str]:
    """What a file of `room` imports against the table."""
    allowed = MAY_IMPORT[room] | (MATHS if room == "stages" else set())
    bad = set()
    for module in imports_of(source):
        top = module.partition(".")[0]
        ours = top in MAY_IMPORT or top in {"tests", "notebooks"}
        if ours and not any(module == a or module.startswith(f"{a}.") for a in allowed):
            bad.add(module)
        if top == "ray" and room not in RAY_MAY_LIVE_IN:
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
    assert not violations(
        "stages", "from stages.base import Stage\nfrom annotators.dnsmos import x"
    )


def test_a_command_that_needs_no_torch_does_not_wait_for_it():
    """Its import takes seconds, in the driver and in every worker."""
    modules = "jobs.cli, jobs.run_curate, jobs.run_mine, jobs.run_annotate, jobs.settings"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
