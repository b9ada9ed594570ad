"""What runs the network: the processor, or a device that an onnxruntime of its own serves."""

from __future__ import annotations

import os
from typing import Final

from rec_pkg.errors import BadInput

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the library is loaded

import onnxruntime as ort  # after that

CPU: Final = "cpu"
CPU_PROVIDER: Final = "CPUExecutionProvider"
SUFFIX: Final = "ExecutionProvider"


def provider_name(provider: str) -> str:
    """Return the name by which a provider of onnxruntime is asked for: cuda, openvino, coreml."""
    return provider.removesuffix(SUFFIX).lower()


def installed_provider(name: str) -> str | None:
    """
    Return onnxruntime's name of a provider, None if the onnxruntime that is installed lacks it.

    Raises:
        BadInput: if onnxruntime knows no provider of this name.
    """
    known = {provider_name(each): each for each in ort.get_all_providers()}
    wanted = known.get(provider_name(name))
    if wanted is None:
        raise BadInput(f"no execution provider {name!r}, only {', '.join(sorted(known))}")
    return wanted if wanted in ort.get_available_providers() else None
