"""URLs as libpq and as SQLAlchemy write them."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa

from rec_pkg.client import Client
from rec_pkg.database import connect
from rec_pkg.database.addresses import url_of
from rec_pkg.errors import BadInput
from rec_pkg.settings import Settings


def reached(url: str) -> dict[str, object]:
    """What the driver would be told to connect to."""
    address = url_of(url)
    _, parts = sa.create_engine(address).dialect.create_connect_args(address)
    return {str(name): value for name, value in parts.items() if name != "context"}


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_several_hosts_are_handed_on_with_all_that_belongs_to_them(scheme: str) -> None:
    url = f"{scheme}://ada:s3%40c,ret@here:1,there:2/shop?target_session_attrs=read-write"
    assert reached(url) == {
        "host": "here,there",
        "port": "1,2",
        "user": "ada",
        "password": "s3@c,ret",
        "dbname": "shop",
        "target_session_attrs": "read-write",
    }


def test_several_hosts_may_be_sockets_and_have_the_usual_port() -> None:
    assert reached("postgresql:///shop?host=/run/a,/run/b&port=1,2")["host"] == "/run/a,/run/b"
    assert reached("postgresql://ada@here,there/shop")["host"] == "here,there"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:s3@cret@here:1,there:2/shop",
        "postgresql://ada:a,b/s3cret@here/shop",
        "postgresql://ada:s3cret@here:1,there:two/shop",
        "postgresql://ada:s3cret%zz@here:1,there:2/shop",
    ],
)
def test_an_address_in_disorder_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        url_of(url)
    assert "s3cret" not in str(caught.value)


def test_the_next_host_is_asked_when_the_first_does_not_answer(database_url: str) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(database_url)
    several = parts | {
        "host": f"127.0.0.1,{parts['host']}",
        "port": f"1,{parts.get('port', 5432)}",
        "target_session_attrs": "read-write",
    }
    url = sa.URL.create(
        "postgresql",
        username=str(several.pop("user")),
        database=str(several.pop("dbname")),
        query={name: str(value) for name, value in several.items() if name != "password"},
    )
    if password := parts.get("password"):
        url = url.set(password=str(password))
    address = url.render_as_string(hide_password=False)
    with Client(address) as client:
        assert client.status().items == 0
    with connect(Settings.model_validate({"database_url": address})) as connection:
        assert connection.execute("select count(*) from rec.items").fetchone() == (0,)
