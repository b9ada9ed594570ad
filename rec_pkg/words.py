"""Shares of a score in words, for the command line, the demo, and applications."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rec_pkg.queries import Share


def subject(share: Share) -> str:
    """Return the subject of a share: the title or text of its event, or its term."""
    return share.title or share.text or share.item_id or share.term


def quoted(text: str, length: int) -> str:
    """Return a text in quotation marks, cut to `length` characters."""
    return f"“{text[:length]}{'…' if len(text) > length else ''}”"


def reasons(shares: Iterable[Share], most: int = 2, length: int = 40) -> list[str]:
    """
    Return the events that support an item, each with its percentage of all support.

    Args:
        shares: of one item, greatest first, as `explain` returns them.
        most: the largest number of reasons.
        length: the longest quotation, in characters.
    """
    pros = [share for share in shares if share.event_id is not None and share.share > 0]
    total = sum(share.share for share in pros)
    return [
        f"{share.share / total:.0%} {share.kind} {quoted(subject(share), length)}"
        for share in pros[:most]
    ]
