"""`voxquarry submit`: a command as a job on a Ray cluster, its log and its exit code here."""

import asyncio
import logging
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from annotators.registry import first_line
from pipeline.run_record import without_secrets
from schemas.errors import ConfigError

FAILED = 1
INTERRUPTED = 130


def submit(command: Sequence[str], address: str, *, wait: bool, console: Console) -> int:
    """Start `voxquarry COMMAND` on the cluster behind a Ray dashboard; returns its exit code.

    Local YAML files among the arguments (a profile, a policy) travel along; sources and corpora must
    be where the cluster reaches them. Raises `ConfigError` where there is no cluster.
    """
    from ray.exceptions import RayError
    from ray.job_submission import JobStatus, JobSubmissionClient

    # It tells of every log's end.
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
    try:
        client = JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, RayError) as error:
        raise ConfigError(f"no Ray dashboard answers at {without_secrets(address)}") from error
    with tempfile.TemporaryDirectory() as folder:
        arguments = [_travelling(one, Path(folder)) for one in command]
        try:
            job = client.submit_job(
                entrypoint=shlex.join(["python", "-m", "jobs.cli", *arguments]),
                runtime_env={"working_dir": folder},
                metadata={"command": f"voxquarry {command[0]}"},
            )
        except (RuntimeError, RayError) as error:
            raise ConfigError(f"the cluster takes no job: {first_line(error)}") from error
    stop = f"ray job stop {job} --address {without_secrets(address)}"
    console.print(f"Job {job} ({command[0]}) is on its way. To end it: {stop}", highlight=False)
    if not wait:
        return 0
    try:
        asyncio.run(_follow(client, job, console))
    except KeyboardInterrupt:
        console.print(f"It runs on without this terminal. To end it: {stop}", highlight=False)
        return INTERRUPTED
    info = client.get_job_info(job)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    code = info.driver_exit_code or FAILED
    # The message repeats the log, which stands above already.
    console.print(f"Job {job} {info.status.value.lower()}, exit code {code}.", highlight=False)
    return code


async def _follow(client: object, job: str, console: Console) -> None:
    async for lines in client.tail_job_logs(job):  # type: ignore[attr-defined]
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
