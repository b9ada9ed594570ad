from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from rec_pkg.database import (
    LIBPQ_VARIABLES,
    connect,
    conninfo,
    embedded_server,
    open_engine,
    without_secrets,
)
from rec_pkg.errors import BadInput, DatabaseUnreachable
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = "postgresql://ada:s3cret@127.0.0.1:1/shop"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGREC_DATABASE_URL", "PGPASSWORD", *LIBPQ_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account can reach, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="pgrec-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def settings(url: str | None = None, data_dir: Path | None = None) -> Settings:
    secret = None if url is None else SecretStr(url)
    return Settings(database_url=secret, data_dir=data_dir or Path("nowhere"))


def parts(url: str | None = None) -> dict[str, object]:
    return dict(psycopg.conninfo.conninfo_to_dict(conninfo(settings(url))))


def test_the_url_of_the_settings_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    assert (
        parts("postgresql://ada@here:5433/shop").items()
        >= {
            "host": "here",
            "port": "5433",
            "user": "ada",
            "dbname": "shop",
        }.items()
    )


@pytest.mark.parametrize("name", LIBPQ_VARIABLES)
def test_then_come_the_variables_of_libpq(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "5432")
    assert embedded_server(settings()) is None
    assert "host" not in parts()


@pytest.mark.parametrize("url", [None, ""])
def test_then_comes_the_embedded_server(url: str | None) -> None:
    assert embedded_server(settings(url)) is not None


def test_it_is_made_only_for_those_who_ask_and_started_for_all(folder: Path) -> None:
    ours = settings(data_dir=folder)
    server = embedded_server(ours)
    assert server is not None
    with pytest.raises(DatabaseUnreachable, match="pgrec up"):
        connect(ours)
    assert not server.home.exists()
    try:
        for create in (True, False):
            with connect(ours, create=create) as connection:
                row = connection.execute("select current_database()").fetchone()
            assert row == ("pgrec",)
            server.stop("immediate")
    finally:
        server.stop("immediate")
        shutil.rmtree(server.home)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://ada:s3%40cret@here/shop",
        "postgres://ada:s3%40cret@here/shop",
        "host=here user=ada dbname=shop password=s3@cret",
    ],
)
def test_urls_are_understood_as_libpq_and_as_sqlalchemy_write_them(url: str) -> None:
    assert parts(url).items() >= {"host": "here", "dbname": "shop", "password": "s3@cret"}.items()


def test_an_engine_and_a_connection_reach_the_same_database(database_url: str) -> None:
    question = "select current_database()"
    engine = open_engine(settings(database_url))
    with engine.connect() as ours, connect(settings(database_url)) as theirs:
        row = theirs.execute(question.encode()).fetchone()
        assert row is not None
        assert ours.scalar(sa.text(question)) == row[0]
    engine.dispose()


def test_a_server_that_does_not_answer_is_one_error_for_all() -> None:
    with pytest.raises(DatabaseUnreachable, match="Connection refused"):
        connect(settings(NOBODY))
    with pytest.raises(DatabaseUnreachable, match="Connection refused"):
        open_engine(settings(NOBODY)).connect()


def test_a_database_that_is_not_there_is_named(database_url: str) -> None:
    url = sa.make_url(database_url).set(database="atlantis").render_as_string(hide_password=False)
    with pytest.raises(DatabaseUnreachable, match='"atlantis" does not exist'):
        connect(settings(url))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:s3cret@s3cret@here/shop",
        "postgresql://ada:s3cret/s3cret@here/shop",
        "s3cret",
        "host=here s3cret",
        "mysql://ada:s3cret@here/shop",
        NOBODY,
    ],
)
def test_no_error_shows_the_password(url: str) -> None:
    with pytest.raises((BadInput, DatabaseUnreachable)) as caught:
        connect(settings(url))
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(settings(url))


def test_the_password_goes_by_the_environment() -> None:
    shown, environment = without_secrets(conninfo(settings(f"{NOBODY}?sslpassword=s3cret")))
    assert "s3cret" not in shown
    assert psycopg.conninfo.conninfo_to_dict(shown)["dbname"] == "shop"
    assert environment == {"PGPASSWORD": "s3cret"}


def test_the_url_of_an_engine_holds_no_secret() -> None:
    assert open_engine(settings(NOBODY)).url.render_as_string(hide_password=False) == (
        "postgresql+psycopg://"
    )
