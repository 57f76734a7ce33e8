"""Where the bundled recordings are."""

import os
from pathlib import Path

import pytest

# Before any test imports a numeric library: one thread per process, as workers run.
os.environ.setdefault("OMP_NUM_THREADS", "1")

DEVSET = Path(__file__).parent / "data" / "devset"


@pytest.fixture(scope="session")
def devset() -> Path:
    """Real recordings with their truth; see tests/data/devset/README.md."""
    return DEVSET
