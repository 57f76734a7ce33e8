"""The cluster examples fit the schemas of what reads them, and their commands are voxquarry's."""

import copy
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start
from typer import BadParameter
from typer.main import get_command

from jobs.cli import app
from jobs.settings import Settings
from pipeline.capacity import PoolConfig
from pipeline.profile import load_profile

ROOT = Path(__file__).parents[2]
RAYJOB = ROOT / "examples" / "kuberay" / "rayjob.yaml"
RAY_UP = ROOT / "examples" / "ray-up" / "cluster.yaml"
RAYJOB_SCHEMA = yaml.safe_load((Path(__file__).parent / "rayjob.schema.yaml").read_text())
KUBERNETES = "1.34"
# Typer keeps its name to itself.
UsageError = BadParameter.__bases__[0]


@pytest.fixture
def rayjob() -> Any:
    return yaml.safe_load(RAYJOB.read_text(encoding="utf-8"))


@pytest.fixture
def cluster() -> Any:
    return yaml.safe_load(RAY_UP.read_text(encoding="utf-8"))


def groups_of(rayjob: Any) -> list[Any]:
    spec = rayjob["spec"]["rayClusterSpec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def check_rayjob(rayjob: Any) -> None:
    jsonschema.validate(rayjob, RAYJOB_SCHEMA)
    for group in groups_of(rayjob):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}
        # YAML's anchors leave one object in two places, which the validator takes for a circle.
        kubernetes_validate.validate(copy.deepcopy(pod), KUBERNETES, strict=True)


def ray_start_flags() -> set[str]:
    return {name for option in start.params for name in (*option.opts, *option.secondary_opts)}


def commands_of(text: str) -> Iterator[list[str]]:
    """Every `voxquarry …` of a file, its lines joined; comments count."""
    joined = re.sub(r"\\\n#?\s*", " ", text)
    joined = re.sub(r">-\n\s+(voxquarry.*)\n\s+(--.*)", r"\n\1 \2", joined)
    for line in joined.splitlines():
        found = re.match(r"^[#\s]*(voxquarry\s.*)$", line)
        if found:
            yield shlex.split(found.group(1))[1:]


def parsed(arguments: list[str]) -> dict[str, Any]:
    """A command line as the CLI understands it, nothing run. Raises `UsageError`."""
    commands = get_command(app).commands
    name, *rest = arguments
    if name not in commands:
        raise UsageError(f"no command {name}")
    context = commands[name].make_context(name, rest)
    if name == "submit":
        return parsed([context.params["command"], *context.args])
    return context.params


def test_the_rayjob_is_one(rayjob: Any) -> None:
    check_rayjob(rayjob)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("spec", "entryPoint"), "voxquarry doctor"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "container"), []),
    ],
)
def test_a_mistake_in_a_rayjob_is_seen(rayjob: Any, place: tuple[str, ...], value: Any) -> None:
    below = rayjob
    for key in place[:-1]:
        below = below[key]
    below[place[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check_rayjob(rayjob)


def test_no_secret_stands_in_an_example(rayjob: Any) -> None:
    secrets = [
        variable
        for group in groups_of(rayjob)
        for container in group["template"]["spec"]["containers"]
        for variable in container["env"]
        if variable["name"].startswith("AWS_") and "KEY" in variable["name"]
    ]
    assert len(secrets) == 6
    assert all(set(one["valueFrom"]) == {"secretKeyRef"} for one in secrets)
    assert "AKIA" not in RAYJOB.read_text() + RAY_UP.read_text()


def test_the_workers_of_a_rayjob_have_room_for_every_pool(rayjob: Any, cluster: Any) -> None:
    """A pool's worker must fit on a node of some kind, or nodes come and it never starts."""
    kinds = [
        {key: float(n) for key, n in container["resources"]["limits"].items() if key != "memory"}
        for group in groups_of(rayjob)[1:]
        for container in group["template"]["spec"]["containers"]
    ]
    nodes = [(kind["cpu"], kind.get("nvidia.com/gpu", 0.0)) for kind in kinds]
    types = [t["resources"] for t in cluster["available_node_types"].values()]
    for machines in (nodes, [(t.get("CPU", 0), t.get("GPU", 0)) for t in types]):
        pools: list[PoolConfig] = list(
            load_profile("cluster-many", [], Settings).engine.pools.values()
        )
        for pool in pools:
            assert any(pool.num_cpus <= cpu and pool.num_gpus <= gpu for cpu, gpu in machines)


def test_ray_up_takes_the_cluster(cluster: Any) -> None:
    validate_config(prepare_config(cluster))
    assert cluster["head_node_type"] in cluster["available_node_types"]
    workers = [t.get("max_workers", 0) for t in cluster["available_node_types"].values()]
    assert sum(workers) == cluster["max_workers"]


def test_a_mistake_in_a_cluster_is_seen(cluster: Any) -> None:
    full = prepare_config(cluster)
    with pytest.raises(jsonschema.ValidationError):
        validate_config({**full, "docker": {"imgae": "x"}})


def test_ray_starts_with_flags_that_it_has(rayjob: Any, cluster: Any) -> None:
    lines = cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    given = {flag for line in lines for flag in re.findall(r"--[a-z-]+", line)}
    given |= {f"--{key}" for group in groups_of(rayjob) for key in group["rayStartParams"]}
    assert "--object-spilling-directory" in given
    assert given <= ray_start_flags()


@pytest.mark.parametrize("path", [RAYJOB, RAY_UP], ids=lambda path: path.name)
def test_the_commands_are_voxquarrys(path: Path) -> None:
    commands = list(commands_of(path.read_text(encoding="utf-8")))
    assert commands
    for command in commands:
        options = parsed(command)
        assert options["out"].startswith("s3://")
        load_profile(options["profile"], [], Settings)


def test_the_entrypoint_is_what_was_parsed(rayjob: Any) -> None:
    assert shlex.split(rayjob["spec"]["entrypoint"])[1:] in list(commands_of(RAYJOB.read_text()))


def test_a_wrong_command_is_seen() -> None:
    with pytest.raises(UsageError):
        parsed(["curate", "s3://recordings"])
    with pytest.raises(UsageError):
        parsed(["submit", "--address", "http://x", "ingest", "s3://recordings", "--lang", "es"])
