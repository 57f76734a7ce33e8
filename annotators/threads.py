"""One thread per model by default: many one-thread processes beat one process of many threads.

Every library here starts a pool as wide as the machine unless told otherwise, and a pipeline of
several actors then fights over the cores.
"""

from pathlib import Path
from typing import Any

from schemas.errors import ModelLoadError


def onnx_session(path: Path, *, threads: int = 1) -> Any:
    """Open an ONNX model on the CPU with `threads` threads. Raises ModelLoadError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would burn a core that another actor needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises types of its own, bound in C++
        raise ModelLoadError(f"{path} does not open as an ONNX model: {error}") from error


def torch_with(threads: int) -> Any:
    """Import torch and bound its pool. Raises ModelLoadError when it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise ModelLoadError("torch is not installed") from error
    torch.set_num_threads(threads)
    return torch
