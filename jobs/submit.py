"""`voxquarry submit`: a command as a job on a Ray cluster, its log and its exit code here."""

import asyncio
import logging
import os
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from rich.console import Console

from annotators.registry import first_line
from pipeline.run_record import without_secrets
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

# They tell of every upload, and of every log's end.
CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
FAILED = 1
INTERRUPTED = 130


def submit(command: Sequence[str], address: str, *, wait: bool, console: Console) -> int:
    """Start `voxquarry COMMAND` on the cluster behind a Ray dashboard; returns its exit code.

    Local YAML files among the arguments (a profile, a policy) travel along; sources and corpora must
    be where the cluster reaches them. Raises `ConfigError` where there is no cluster.
    """
    from ray.exceptions import RayError
    from ray.job_submission import JobStatus

    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    client = _connected(address)
    with tempfile.TemporaryDirectory() as folder:
        arguments = [_travelling(one, Path(folder)) for one in command]
        try:
            job = client.submit_job(
                entrypoint=shlex.join(["python", "-m", "jobs.cli", *arguments]),
                runtime_env={"working_dir": folder},
                metadata={"command": f"voxquarry {command[0]}"},
            )
        except (OSError, RuntimeError, RayError) as error:
            raise ConfigError(f"the cluster takes no job: {first_line(error)}") from error
    stop = f"ray job stop {job} --address {without_secrets(address)}"
    console.print(f"Job {job} ({command[0]}) is on its way. To end it: {stop}", highlight=False)
    if not wait:
        return 0
    try:
        asyncio.run(_follow(client, job, console))
        info = client.get_job_info(job)
    except KeyboardInterrupt:
        console.print(f"It runs on without this terminal. To end it: {stop}", highlight=False)
        return INTERRUPTED
    except (OSError, RuntimeError, aiohttp.ClientError) as error:
        console.print(f"The cluster is lost from sight: {first_line(error)}", highlight=False)
        return FAILED
    if info.status == JobStatus.SUCCEEDED:
        return 0
    code = info.driver_exit_code or FAILED
    # The message repeats the log, which stands above already.
    console.print(f"Job {job} {info.status.value.lower()}, exit code {code}.", highlight=False)
    return code


def _connected(address: str) -> "JobSubmissionClient":
    """Raises `ConfigError` where no cluster answers, or it wants another token."""
    from ray.exceptions import AuthenticationError, RayError
    from ray.job_submission import JobSubmissionClient

    place = without_secrets(address)
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"--address wants a dashboard's, such as http://head:8265, got {place}")
    # Ray would follow this variable, or RAY_ADDRESS, to another cluster than the one asked for.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ConfigError(
            f"the cluster at {place} takes nothing without its token: set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN to what `ray get-auth-token` says on its head"
        ) from error
    except (OSError, RuntimeError, RayError) as error:
        raise ConfigError(f"no Ray dashboard answers at {place}") from error


async def _follow(client: "JobSubmissionClient", job: str, console: Console) -> None:
    async for lines in client.tail_job_logs(job):
        console.file.write(lines)
        console.file.flush()


def _travelling(argument: str, folder: Path) -> str:
    """A local YAML file is copied into the job's folder, under a name of its own."""
    path = Path(argument)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return argument
    name = path.name
    while (folder / name).exists():
        name = f"_{name}"
    shutil.copyfile(path, folder / name)
    return name
