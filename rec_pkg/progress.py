"""How long-running work reports its progress."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""Called with the name of the step, the amount done, and the total (0 if unknown)."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""
