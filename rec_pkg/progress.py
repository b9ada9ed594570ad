"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is, 0 if unknown."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Say nothing."""
