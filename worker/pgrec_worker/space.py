"""The space of the stored vectors: the encoder's own, or that of a calibration on top of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from rec_pkg.encoder.calibration import Calibration
from rec_pkg.errors import EncoderMismatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rec_pkg.encoder.store import ActiveEncoder


@dataclass(frozen=True)
class Space:
    """A fingerprint that vectors are stored under, and the map that moves vectors there."""

    fingerprint: str
    calibration: Calibration | None = field(default=None, compare=False)

    @classmethod
    def of(cls, active: ActiveEncoder, ours: str) -> Self:
        """
        Return the space of the active encoder; `ours` is the fingerprint of the worker's encoder.

        Raises:
            EncoderMismatch: if the active encoder is neither that one nor a calibration of it.
        """
        if ours not in {active.fingerprint, active.base}:
            beneath = f" on {active.base:.12}" if active.base else ""
            raise EncoderMismatch(f"active {active.fingerprint:.12}{beneath}, ours {ours:.12}")
        if active.calibration is None:
            return cls(active.fingerprint)
        stored = Calibration.from_bytes(active.calibration, active.dims)
        return cls(active.fingerprint, stored)

    def place(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the encoder's vectors, (n, dims), moved into this space."""
        return self.calibration.apply(vectors) if self.calibration else vectors
