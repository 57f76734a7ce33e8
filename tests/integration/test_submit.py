"""Commands as jobs on a Ray cluster."""

import socket
import subprocess
import sys
from pathlib import Path

VOXQUARRY = Path(sys.executable).parent / "voxquarry"


def test_without_a_cluster_there_is_one_line() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    done = subprocess.run(
        [VOXQUARRY, "submit", "--address", f"http://127.0.0.1:{port}", "doctor"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "ConfigError: no Ray dashboard answers" in done.stderr
