"""The devices a merge or an evaluation runs on."""

from __future__ import annotations

import os
from pathlib import Path

from mergeline.errors import InputError

CORES = min(len(os.sched_getaffinity(0)), 8)
"""Threads that merge on this machine unless somebody says otherwise."""

_DRIVER_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""What a driver of GPUs that torch can use puts there: NVIDIA's, Windows' for Linux beneath it, AMD's."""


def choose_devices(device: str) -> tuple[str, ...]:
    """Return the devices of this machine that a setting names.

    Args:
        device: ``cpu``; ``cuda``: every GPU; ``cuda:N``; ``auto``: every GPU, or the CPU where there is none.

    Raises:
        InputError: If a GPU is named that is not there. Only ``auto`` chooses.
    """
    # A merge on the CPU does without torch, whose import takes longer than many a merge.
    if device == "cpu" or (device == "auto" and not any(Path(name).exists() for name in _DRIVER_FILES)):
        return ("cpu",)
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    visible = tuple(f"cuda:{index}" for index in range(count))
    if device == "auto":
        return visible or ("cpu",)
    chosen = visible if device == "cuda" else tuple(name for name in visible if name == device)
    if not chosen:
        raise InputError(
            f"device {device}: torch {torch.__version__} sees {', '.join(visible) or 'no GPU'} on this machine; "
            "choose auto or cpu."
        )
    return chosen
