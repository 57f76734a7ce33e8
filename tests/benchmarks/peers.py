"""Programs that we are compared with, each run in an environment of its own."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

TIMEOUT_S = 3600


class PeerUnavailable(Exception):
    """The peer does not install or does not run here; the message says why."""


def own_environment() -> dict[str, str]:
    """This process's variables without those that would lend the peer our packages."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run_program(command: list[str], log: Path, what: str, environment: Mapping[str, str]) -> str:
    """Standard output of a command; it and then the errors are kept in `log`.

    Raises PeerUnavailable with the last thing that it said when it fails.
    """
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerUnavailable(f"{what}: {error}") from error
    log.write_bytes(done.stdout + done.stderr)
    if done.returncode:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        reason = lines[-1] if lines else "no output"
        raise PeerUnavailable(f"{what} ended with {done.returncode}: {reason} (see {log})")
    return done.stdout.decode(errors="replace")
