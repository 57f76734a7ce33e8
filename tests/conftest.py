"""Where the bundled recordings are."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# Before any test imports a numeric library: one thread per process, as workers run.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's workers give way to all else; what runs beside the tests would starve them.
os.environ.setdefault("RAY_worker_niceness", "0")

# Other work on the machine makes an example slow and says nothing of the law.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

DEVSET = Path(__file__).parent / "data" / "devset"


@pytest.fixture(scope="session")
def devset() -> Path:
    """Real recordings with their truth; see tests/data/devset/README.md."""
    return DEVSET


def pytest_sessionstart(session: pytest.Session) -> None:
    """Messages are not folded: where they fold depends on how long the paths in them are."""
    session.config.get_terminal_writer().fullwidth = shutil.get_terminal_size().columns
    os.environ["COLUMNS"] = "500"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that needs a GPU skips where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device here")
