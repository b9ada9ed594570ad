"""pgrec: a recommender that lives inside your Postgres."""

from rec_pkg import models
from rec_pkg.client import Client, Status
from rec_pkg.errors import (
    BadInput,
    DatabaseRefused,
    DatabaseUnreachable,
    RecError,
    SchemaMismatch,
    SchemaMissing,
    UnknownItem,
)
from rec_pkg.operations.vacuuming import Erasures
from rec_pkg.queries import (
    Interest,
    PopularItem,
    Recommendation,
    Share,
    SimilarItem,
    explain,
    explain_list,
    interest,
    interest_vector,
    popular,
    recommend,
    similar_items,
)
from rec_pkg.schema import migrate
from rec_pkg.settings import Settings

__all__ = [
    "BadInput",
    "Client",
    "DatabaseRefused",
    "DatabaseUnreachable",
    "Erasures",
    "Interest",
    "PopularItem",
    "RecError",
    "Recommendation",
    "SchemaMismatch",
    "SchemaMissing",
    "Settings",
    "Share",
    "SimilarItem",
    "Status",
    "UnknownItem",
    "explain",
    "explain_list",
    "interest",
    "interest_vector",
    "migrate",
    "models",
    "popular",
    "recommend",
    "similar_items",
]
