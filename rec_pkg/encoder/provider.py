"""Execution providers: the processor, or a device that needs an onnxruntime of its own."""

from __future__ import annotations

import os
from typing import Final

from rec_pkg.errors import BadInput

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads it when it is loaded

import onnxruntime as ort  # must follow the line above

CPU: Final = "cpu"
CPU_PROVIDER: Final = "CPUExecutionProvider"
SUFFIX: Final = "ExecutionProvider"


def provider_name(provider: str) -> str:
    """Return the name by which users select a provider of onnxruntime: cuda, openvino, coreml."""
    return provider.removesuffix(SUFFIX).lower()


def installed_provider(name: str) -> str | None:
    """
    Return onnxruntime's name of a provider; None if the installed onnxruntime lacks it.

    Raises:
        BadInput: if onnxruntime does not know a provider of this name.
    """
    known = {provider_name(each): each for each in ort.get_all_providers()}
    wanted = known.get(provider_name(name))
    if wanted is None:
        raise BadInput(f"no execution provider {name!r}, only {', '.join(sorted(known))}")
    return wanted if wanted in ort.get_available_providers() else None
