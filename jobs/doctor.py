"""`voxquarry doctor`: can this machine run this profile?"""

import os
import shutil
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from annotators.registry import resolve
from jobs.curate import model_names
from jobs.settings import Settings
from pipeline.run_record import versions
from schemas.errors import ModelLoadError

# A corpus holds about 110 MB of FLAC per hour of 24 kHz speech, beside the recordings.
LOW_DISK_GB = 5.0


def examine(config: Settings, console: Console) -> bool:
    """Print what is installed and what each model resolves to; False if something is missing."""
    machine = Table("machine", "", title="Machine", show_header=False)
    machine.add_row("cores", str(os.cpu_count()))
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory_gb = properties.total_memory / 2**30
        machine.add_row(f"GPU {index}", f"{properties.name}, {memory_gb:.0f} GiB")
    if not torch.cuda.device_count():
        machine.add_row("GPU", "none: use the profile embedded, or set stages to device=cpu")
    free_gb = shutil.disk_usage(Path.cwd()).free / 2**30
    enough = free_gb >= LOW_DISK_GB
    machine.add_row("free disk here", f"{free_gb:.0f} GiB" + ("" if enough else "  [red]low[/]"))
    machine.add_row("Ray", os.environ.get("RAY_ADDRESS", "a local one, started per run"))
    for package, version in versions().items():
        machine.add_row(package, version)
    console.print(machine)

    models = Table("stage", "model", "from", "hash", "where", title="Models of this profile")
    healthy = enough
    experts = [("experts", name) for name in config.experts.models]
    for stage, name in [*model_names(config), *experts]:
        try:
            found = resolve(name)
            models.add_row(stage, name, found.origin, found.hash[:12], str(found.path))
        except ModelLoadError as error:
            healthy = False
            models.add_row(stage, name, "[red]missing[/]", "", str(error))
    console.print(models)
    wants_gpu = [name for name, pool in config.engine.pools.items() if pool.num_gpus]
    if wants_gpu and not torch.cuda.device_count() and "RAY_ADDRESS" not in os.environ:
        console.print(f"[red]The pools {', '.join(wants_gpu)} want a GPU; none is here.[/]")
        healthy = False
    console.print("[green]Ready.[/]" if healthy else "[red]Not ready: see above.[/]")
    return healthy
