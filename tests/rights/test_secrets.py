"""A password is for the server alone: no output, log, traceback or process title shows it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url
from typer.testing import CliRunner

from rec_pkg.cli import app
from rec_pkg.client import Client
from rec_pkg.database import open_engine
from rec_pkg.errors import RecError
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

Connection = psycopg.Connection[tuple[Any, ...]]

CANARY: Final = "Canary77"
PATIENCE_S: Final = 60.0
COMMANDS: Final = [
    ["up"],
    ["down"],
    ["migrate"],
    ["migrate", "--down", "base", "--yes"],
    ["status"],
    ["status", "--json"],
    ["doctor"],
    ["doctor", "--json"],
    ["retry"],
    ["recommend", "ann"],
    ["explain", "ann", "a"],
    ["similar", "a"],
    ["track", "ann", "a"],
    ["export", "ann"],
    ["undo", "ann", "1"],
    ["forget", "ann", "--yes"],
    ["calibrate"],
    ["tune"],
    ["load", "items", "{file}"],
    ["load", "events", "{file}"],
    ["worker", "--once"],
    ["no such command"],
    ["recommend"],
]
ADDRESSES: Final = [
    f"postgresql://shop:{CANARY}@127.0.0.1:1/shop",
    f"postgresql://shop:{CANARY}@no-such-host.invalid/shop",
    f"postgresql://shop:{CANARY}%zz@127.0.0.1/shop",
    f"postgresql://shop:{CANARY}@127.0.0.1:port/shop",
    f"postgresql://shop:a@{CANARY}@127.0.0.1/shop",
    f"postgresql://shop:a/{CANARY}@127.0.0.1/shop",
    f"postgresql://shop:1/{CANARY}@127.0.0.1/shop",
    f"postgresql://shop:{CANARY}@127.0.0.1:1/shop?no_such_option=1",
    f"postgresql://127.0.0.1:1/shop?user=shop&password={CANARY}&sslmode=odd",
    f"postgresql://shop:{CANARY}@127.0.0.1:1,127.0.0.1:2/shop?target_session_attrs=any",
    f"postgresql://shop:a,b/{CANARY}@127.0.0.1/shop",
    f"postgresql://shop:a,{CANARY}@{CANARY}@127.0.0.1:1,127.0.0.1:2/shop",
    f"mysql://shop:{CANARY}@127.0.0.1/shop",
    f"host=127.0.0.1 port=1 user=shop password={CANARY} no_such_option=1",
    f"host=127.0.0.1 port=1 user=shop password='{CANARY}",
    f"{CANARY}",
]


def shown(*arguments: str, url: str, **variables: str) -> str:
    """All that a command prints, and what it raised with what led to it."""
    environment = {"PGREC_DATABASE_URL": url, **variables}
    result = CliRunner().invoke(app, arguments, env=environment)
    parts, error = [result.output], result.exception
    while error is not None:
        parts += [str(error), repr(error)]
        error = error.__cause__
    return "\n".join(parts)


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "rows.csv"
    path.write_text("item_id,user_id,kind\na,ann,click\n")
    return str(path)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_failing_command_does_not_show_the_password(command: list[str], table: str) -> None:
    said = shown(*(part.format(file=table) for part in command), url=ADDRESSES[0])
    assert CANARY not in said
    assert said.strip()


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_broken_address_does_not_show_the_password(address: str) -> None:
    for command in ("status", "doctor", "migrate"):
        assert CANARY not in shown(command, url=address, PGCONNECT_TIMEOUT="2")


@pytest.mark.parametrize("address", ADDRESSES)
def test_neither_client_nor_engine_shows_the_password(address: str) -> None:
    said = []
    for opened in (Client, lambda url: open_engine(Settings(database_url=SecretStr(url)))):
        try:
            found = opened(address)
            said.append(repr(found) + repr(getattr(found, "_bind", found)))
            if isinstance(found, Client):
                found.status()
        except RecError as error:
            said += [str(error), repr(error), repr(error.__cause__)]
    assert said
    assert CANARY not in "\n".join(said)


def test_settings_do_not_show_the_password() -> None:
    settings = Settings(database_url=SecretStr(ADDRESSES[0]))
    assert (
        CANARY
        not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    )


@pytest.mark.parametrize("command", COMMANDS[:-2], ids=" ".join)
def test_help_does_not_show_the_password(command: list[str]) -> None:
    assert CANARY not in shown(*command[:2], "--help", url=ADDRESSES[0])


@pytest.fixture
def login(db: Connection, database_url: str) -> Iterator[str]:
    """URL of a role whose password is the canary and who may do nothing at all."""
    name = f"login_{uuid4().hex[:8]}"
    db.execute(f"create role {name} login password '{CANARY}'".encode())
    url = make_url(database_url).set(username=name, password=CANARY)
    yield url.render_as_string(hide_password=False)
    db.execute(f"drop owned by {name}".encode())
    db.execute(f"drop role {name}".encode())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_the_server_refuses_does_not_show_the_password(
    command: list[str], table: str, login: str
) -> None:
    assert CANARY not in shown(*(part.format(file=table) for part in command), url=login)


def test_a_traceback_does_not_show_the_password(login: str) -> None:
    """Of an error that nobody foresaw, with every local variable in reach."""
    code = (
        "from rec_pkg import schema\n"
        "def fails(*_): raise ZeroDivisionError('unforeseen')\n"
        "schema.check = fails\n"
        "from rec_pkg.cli import app; app()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "status"],
        env=os.environ | {"PGREC_DATABASE_URL": login, "FORCE_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "unforeseen" in done.stderr
    assert CANARY not in done.stdout + done.stderr


def test_neither_log_nor_process_of_a_worker_shows_the_password(db: Connection, login: str) -> None:
    """It connects, is refused, loses its line, and stops."""
    member = make_url(login).username
    db.execute(f"grant rec_worker to {member}".encode())
    with subprocess.Popen(
        [sys.executable, "-m", "rec_pkg", "worker", "--metrics-port", "0"],
        env=os.environ | {"PGREC_DATABASE_URL": login, "PGREC_LOG_FORMAT": "json"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        backends = "select pid from pg_stat_activity where usename = %s"
        wait(lambda: len(db.execute(backends, [member]).fetchall()) == 3)
        titles = Path(f"/proc/{process.pid}/cmdline")
        if titles.exists():
            assert CANARY not in titles.read_text()
        db.execute(f"alter role {member} nologin".encode())
        db.execute(f"select pg_terminate_backend(pid) from ({backends}) b".encode(), [member])
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=PATIENCE_S)[0]
    assert "no connection to the server" in said
    assert CANARY not in said


def wait(done: Any) -> None:  # noqa: ANN401  # a question
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_metrics_are_for_this_machine_alone_unless_told_otherwise() -> None:
    from pgrec_worker.metrics import Metrics  # noqa: PLC0415  # slow to import

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Metrics().serve(Settings().metrics_host, port)
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.2", port), 5):
        pass
