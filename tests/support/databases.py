"""Databases that tests make on a server and drop again."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql
from sqlalchemy import create_engine, make_url

from rec_pkg import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine

Connection = psycopg.Connection[tuple[Any, ...]]

PREFIX: Final = f"pgrec_test_{uuid4().hex[:8]}"  # sessions may share a server
NUMBERS: Final = count(1)


@contextmanager
def new_database(server: str, template: str = "template0") -> Iterator[str]:
    """Give the URL of a new database for as long as the block runs."""
    name = f"{PREFIX}_{next(NUMBERS)}"
    create = sql.SQL("create database {} template {}")
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        drop = sql.SQL("drop database if exists {} with (force)")
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(drop.format(sql.Identifier(name)))


@contextmanager
def migrated_database(server: str, dims: int = 384) -> Iterator[Connection]:
    """Give a connection to a new database whose vectors have another length than the template's."""
    with new_database(server) as url:
        with engine_of(url) as engine:
            schema.migrate(engine, dims=dims)
        with connected(url) as connection:
            yield connection


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    """Give an engine on a database, and leave no visitor there."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Give a connection in autocommit that knows pgvector's types."""
    with psycopg.connect(url, autocommit=True) as connection:
        register_vector(connection)
        yield connection
