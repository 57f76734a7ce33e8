"""Commands as jobs on a Ray cluster."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

SUBMIT = (sys.executable, "-m", "jobs.cli", "submit")
API_KEY = f"sk-{secrets.token_hex(16)}"
# What an earlier test or the machine says of another Ray would count here.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def submitted(address: str, *command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`voxquarry submit` as somebody with this environment runs it."""
    return subprocess.run(
        [*SUBMIT, "--address", address, *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=env,
    )


@dataclass(frozen=True, kw_only=True)
class Head:
    """A Ray cluster of one node, which wants a token."""

    address: str
    folder: Path
    """Its session: sockets, logs, jobs."""
    token: str

    @property
    def env(self) -> dict[str, str]:
        """That of somebody who knows the token, and whose API key is his own business."""
        return CLEAN | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "LISTENER_KEY": API_KEY,
            # A job is started by the `python` that its node finds.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def get(self, path: str) -> Any:
        wanted = urllib.request.Request(
            f"{self.address}/{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(wanted, timeout=60) as answer:
            return json.load(answer)

    def submit(self, *command: str) -> subprocess.CompletedProcess[str]:
        return submitted(self.address, *command, env=self.env)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    # Sockets have short paths.
    with tempfile.TemporaryDirectory(prefix="vq", ignore_cleanup_errors=True) as folder:
        port = free_port()
        head = Head(
            address=f"http://127.0.0.1:{port}",
            folder=Path(folder),
            token=secrets.token_hex(32),
        )
        # Every port of its own, since other Rays may run on the machine.
        options = {
            "port": 0,
            "temp-dir": folder,
            "num-cpus": 4,
            "object-store-memory": 200 * 2**20,
            "dashboard-port": port,
            "ray-client-server-port": free_port(),
            "dashboard-agent-listen-port": 0,
            "dashboard-agent-grpc-port": 0,
            "min-worker-port": 0,
            "max-worker-port": 0,
        }
        command = ["ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        with (Path(folder) / "start.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command, *(f"--{k}={v}" for k, v in options.items())],
                stdout=log,
                stderr=log,
                # Busy cores start a dashboard slowly.
                env=head.env | {"RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300"},
            )
        family = [psutil.Process(process.pid)]
        try:
            wait_for(head, process)
            family += family[0].children(recursive=True)
            yield head
        finally:
            process.terminate()
            psutil.wait_procs(family, timeout=10)
            for one in family:
                if one.is_running():
                    one.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def wait_for(head: Head, process: subprocess.Popen[bytes]) -> None:
    """Until the dashboard answers and its agent takes jobs."""
    deadline = time.monotonic() + 300
    while True:
        assert process.poll() is None, (head.folder / "start.log").read_text()
        assert time.monotonic() < deadline, (head.folder / "start.log").read_text()
        try:
            head.get("api/jobs/")
            logs = head.folder.glob("session_latest/logs/dashboard_agent.log")
            if any("Dashboard agent http address" in log.read_text() for log in logs):
                return
        except (urllib.error.URLError, TimeoutError):
            pass
        time.sleep(0.2)


def test_without_a_cluster_there_is_one_line() -> None:
    done = submitted(f"http://127.0.0.1:{free_port()}", "doctor", env=CLEAN)
    assert done.returncode == 1
    assert "ConfigError: no Ray dashboard answers" in done.stderr


def test_an_address_of_something_else_is_refused() -> None:
    done = submitted("head:8265", "doctor", env=CLEAN)
    assert done.returncode == 1
    assert "http://head:8265" in done.stderr


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_that_wants_a_token_says_so_in_one_line(head: Head) -> None:
    done = submitted(head.address, "doctor", env=CLEAN)
    assert done.returncode == 1
    assert "RAY_AUTH_MODE=token" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.slow
def test_a_job_that_succeeds_gives_its_log_and_its_exit_code_and_no_secret(head: Head) -> None:
    # The option counts, not what the environment says of another cluster.
    elsewhere = {"RAY_ADDRESS": "127.0.0.1:1", "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}
    done = submitted(head.address, "doctor", env=head.env | elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Models of this profile" in done.stdout
    assert "INFO dashboard_sdk" not in done.stdout + done.stderr
    (job,) = head.get("api/jobs/")
    assert job["status"] == "SUCCEEDED"
    assert job["metadata"] == {"command": "voxquarry doctor"}
    logs = [path for path in head.folder.rglob("*") if path.is_file()]
    assert any(b"Models of this profile" in path.read_bytes() for path in logs)
    for secret in (API_KEY, head.token):
        assert secret not in json.dumps(job)
        assert not [path for path in logs if secret.encode() in path.read_bytes()]


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.slow
def test_a_job_that_fails_shows_why_and_fails_here(head: Head, tmp_path: Path) -> None:
    done = head.submit("curate", str(tmp_path / "nowhere"), "--out", str(tmp_path / "corpus"))
    assert done.returncode == 1
    assert "ConfigError: " in done.stdout
    assert "nowhere is no folder" in done.stdout
    assert "failed, exit code 1" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.slow
def test_nobody_has_to_wait(head: Head, tmp_path: Path) -> None:
    command = ["curate", str(tmp_path / "nowhere"), "--out", str(tmp_path / "corpus")]
    before = len(head.get("api/jobs/"))
    done = head.submit("--no-wait", *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is on its way" in done.stdout
    assert len(head.get("api/jobs/")) == before + 1


@pytest.mark.ray
@pytest.mark.cluster
@pytest.mark.slow
def test_the_log_comes_while_the_job_runs_and_ctrl_c_leaves_it_running(
    head: Head, devset: Path, tmp_path: Path
) -> None:
    recording = str(devset / "audio" / "es_allison_s1.flac")
    command = ["curate", recording, "--out", str(tmp_path / "corpus")]
    before = {job["submission_id"] for job in head.get("api/jobs/")}
    with subprocess.Popen(
        [*SUBMIT, "--address", head.address, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=head.env,
    ) as process:
        assert process.stdout
        told = []
        for line in process.stdout:
            told.append(line)
            if "Running entrypoint" in line:
                break
        (job,) = [one for one in head.get("api/jobs/") if one["submission_id"] not in before]
        assert job["status"] == "RUNNING", told
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 130
    assert "It runs on without this terminal" in rest
    assert f"ray job stop {job['submission_id']}" in " ".join(rest.split())
    assert head.get(f"api/jobs/{job['submission_id']}")["status"] == "RUNNING"
