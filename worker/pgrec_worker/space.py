"""The space of the stored vectors: that of the encoder, or of a calibration on top of it."""

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
    """A fingerprint under which vectors are stored, and what places an encoder's vectors there."""

    fingerprint: str
    calibration: Calibration | None = field(default=None, compare=False)

    @classmethod
    def of(cls, active: ActiveEncoder, ours: str) -> Self:
        """
        Return the space of the active encoder; `ours` is the fingerprint of the worker's encoder.

        Raises:
            EncoderMismatch: if the active encoder neither is that one nor rests on it.
        """
        if ours not in {active.fingerprint, active.base}:
            beneath = f" on {active.base:.12}" if active.base else ""
            raise EncoderMismatch(f"active {active.fingerprint:.12}{beneath}, ours {ours:.12}")
        if active.calibration is None:
            return cls(active.fingerprint)
        stored = Calibration.from_bytes(active.calibration, active.dims)
        return cls(active.fingerprint, stored)

    def place(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return vectors of the encoder, (n, dims), in this space."""
        return self.calibration.apply(vectors) if self.calibration else vectors
