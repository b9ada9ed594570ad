"""pgrec: a recommender that lives inside your Postgres."""

from rec_pkg import models
from rec_pkg.client import Client, Status
from rec_pkg.errors import (
    BadInput,
    DatabaseUnreachable,
    RecError,
    SchemaMismatch,
    SchemaMissing,
    UnknownItem,
)
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

__all__ = [
    "BadInput",
    "Client",
    "DatabaseUnreachable",
    "Interest",
    "PopularItem",
    "RecError",
    "Recommendation",
    "SchemaMismatch",
    "SchemaMissing",
    "Share",
    "SimilarItem",
    "Status",
    "UnknownItem",
    "explain",
    "explain_list",
    "interest",
    "interest_vector",
    "models",
    "popular",
    "recommend",
    "similar_items",
]
