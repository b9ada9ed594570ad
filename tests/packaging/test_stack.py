from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from shlex import split
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from rec_pkg.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

ROOT: Final = Path(__file__).resolve().parents[2]
PINNED: Final = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*")
SECRET: Final = re.compile(r"PASS|SECRET|TOKEN|_KEY", re.IGNORECASE)
WITHOUT_DEFAULT: Final = re.compile(r"\$\{\w+:\?[^}]+\}")
PASSWORD_IN_URL: Final = re.compile(r"://[^\s/@]*:[^\s/@]+@")
ENGINE_ONLY: Final = re.compile(r"FROM|USER|CMD|WORKDIR /home/|RUN useradd ")
FOLDERS: Final = re.compile(r"(?<![\w/.}])/(src|dist|opt)\b")
ABSOLUTE: Final = re.compile(r"(?:^|[\s=\"':])(/(?!/)\S+)")
SERVER: Final = {"host": "PGHOST", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER"}
START_S: Final = 60
STOP_S: Final = 30


def in_checkout(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def services() -> dict[str, dict[str, Any]]:
    stack: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(in_checkout("docker-compose.yml"))
    return stack["services"]


def check_by_specification(path: Path) -> subprocess.CompletedProcess[str]:
    check = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    return subprocess.run((*check, path), capture_output=True, text=True, check=False)


def test_the_compose_file_is_valid_by_the_compose_specification() -> None:
    checked = check_by_specification(ROOT / "docker-compose.yml")
    assert checked.returncode == 0, checked.stdout


def test_the_specification_refuses_a_state_to_wait_for_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "docker-compose.yml"
    text = in_checkout("docker-compose.yml").replace("service_healthy", "service_ready")
    path.write_text(text, encoding="utf-8")
    checked = check_by_specification(path)
    assert checked.returncode == 1
    assert "service_ready" in checked.stdout


def test_every_image_is_pinned_to_a_version() -> None:
    bases = re.findall(r"^FROM (\S+)", in_checkout("Dockerfile"), re.MULTILINE)
    images = bases + [service["image"] for service in services().values()]
    assert len(images) == 5
    assert [image for image in images if not PINNED.fullmatch(image)] == []


def test_the_image_of_the_stack_is_this_version_of_pgrec() -> None:
    version = tomllib.loads(in_checkout("pyproject.toml"))["project"]["version"]
    assert {services()[name]["image"] for name in ("migrate", "worker")} == {f"pgrec:{version}"}


def test_the_stack_holds_no_secret_and_does_not_start_without_one() -> None:
    secrets = [
        value
        for service in services().values()
        for name, value in service["environment"].items()
        if SECRET.search(name)
    ]
    assert len(secrets) == 3
    assert [value for value in secrets if not WITHOUT_DEFAULT.fullmatch(value)] == []
    for name in ("docker-compose.yml", "Dockerfile", ".env.example"):
        assert not PASSWORD_IN_URL.search(in_checkout(name))
    assert "\nPOSTGRES_PASSWORD=\n" in in_checkout(".env.example")


def test_a_password_in_a_file_gets_neither_into_git_nor_into_the_image() -> None:
    assert ".env" in in_checkout(".gitignore").splitlines()
    everything, *exceptions = in_checkout(".dockerignore").splitlines()
    assert everything == "*"
    assert not [line for line in exceptions if "env" in line]


def test_the_stack_starts_in_order_and_keeps_the_data() -> None:
    db, migrate, worker = (services()[name] for name in ("db", "migrate", "worker"))
    assert migrate["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert worker["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert worker["restart"] == "unless-stopped"
    assert "restart" not in migrate
    # Where the images of PostgreSQL 18 keep the data; those before it had a folder more.
    assert db["volumes"] == ["db:/var/lib/postgresql"]


def test_the_stack_cannot_be_reached_from_other_machines() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert len(ports) == 1
    assert ports[0].startswith("127.0.0.1:")


# Without a container engine: the steps of the Dockerfile, carried out in a folder of the test's own


@dataclass
class Image:
    """What the Dockerfile gives, its absolute paths being below `root`."""

    root: Path
    environment: dict[str, str]
    entrypoint: list[str]

    @property
    def home(self) -> Path:
        return self.root / "home"

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        at_home = {"HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / ".cache")}
        return subprocess.Popen(
            (*self.entrypoint, *command),
            env=self.environment | at_home | environment,
            cwd=self.root,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **environment: str) -> None:
        process = self.start(*command, **environment)
        _, said = process.communicate()
        assert process.returncode == 0, said


def instructions(dockerfile: str) -> list[str]:
    lines = [line for line in dockerfile.splitlines() if line and not line.startswith("#")]
    return re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()


def test_a_step_may_have_several_lines() -> None:
    assert instructions("# a\nRUN one \\\n    && two\n\nUSER x\n") == ["RUN one && two", "USER x"]


def below(root: Path, text: str) -> str:
    """Move the image's folders below `root`; a path elsewhere is refused."""
    moved = FOLDERS.sub(rf"{root}/\1", text)
    assert [path for path in ABSOLUTE.findall(moved) if not path.startswith(str(root))] == []
    return moved


def build(root: Path) -> Image:
    """
    Carry out the Dockerfile below `root`, both stages in one tree.

    Left out is what only a container engine can do, and the encoder's cache is this machine's: to
    rebuild it takes half a minute. What is installed is compiled when it is imported, if ever.
    """
    ours = ("PG", "PYTHON", "VIRTUAL_ENV")
    image = Image(root, {k: v for k, v in os.environ.items() if not k.startswith(ours)}, [])
    image.environment["PIP_COMPILE"] = "0"
    image.environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    image.home.mkdir()
    folder = root
    for step in instructions(in_checkout("Dockerfile")):
        if ENGINE_ONLY.match(step):
            continue
        match step.split(maxsplit=1):
            case "WORKDIR", path:
                folder = Path(below(root, path))
                folder.mkdir(parents=True)
            case "COPY", arguments:
                copy(arguments.split(), folder)
            case "ENV", assignments:
                set_variables(image, assignments)
            case "RUN", command:
                run(image, below(root, re.sub(r"--mount=\S+ +", "", command)), folder)
            case "ENTRYPOINT", words:
                image.entrypoint = json.loads(words)
            case _:
                pytest.fail(f"this test cannot follow {step}")
    return image


def copy(arguments: list[str], folder: Path) -> None:
    *sources, target = arguments
    if sources[0] == "--from=build":
        assert sources[1:] == [target]
        return
    for source in sources:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / target)
        else:
            shutil.copy(ROOT / source, folder / target)


def set_variables(image: Image, assignments: str) -> None:
    for assignment in split(below(image.root, assignments)):
        name, _, value = assignment.partition("=")
        image.environment[name] = value.replace("$PATH", image.environment["PATH"])
    image.environment["PGREC_CACHE_DIR"] = str(Settings().cache_dir)


def run(image: Image, command: str, folder: Path) -> None:
    shell = ("/bin/sh", "-c", command)
    done = subprocess.run(
        shell,
        cwd=folder,
        env=image.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    root = tmp_path_factory.mktemp("image")
    yield build(root)
    shutil.rmtree(root)  # pytest would keep three of them, more than half a gigabyte each


@pytest.fixture
def address(
    image: Image, new_database: Callable[[], AbstractContextManager[str]]
) -> Iterator[dict[str, str]]:
    """What a service of the stack is told of its database: here an empty one of the test server."""
    with new_database() as url:
        parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
        variables = {variable: parts[name] for name, variable in SERVER.items() if name in parts}
        variables["PGPASSWORD"] = parts.get("password", "")
        image.run("migrate", "--down", "base", "--yes", **variables)
        yield variables


def in_the_stack(service: str, address: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return command and variables of a service, at another database than that of the stack."""
    described = services()[service]
    assert set(described["environment"]) >= {"PGHOST", "PGUSER", "PGDATABASE", "PGPASSWORD"}
    return described["command"], described["environment"] | address


@pytest.mark.slow
def test_the_image_migrates_and_encodes_with_nothing_but_what_the_wheel_brings(
    image: Image, address: dict[str, str]
) -> None:
    command, variables = in_the_stack("migrate", address)
    image.run(*command, **variables)
    with connect(address) as connection:
        connection.execute("insert into rec.items (item_id, title) values ('a', 'blue jeans')")
    command, variables = in_the_stack("worker", address)
    image.run(*command, "--once", **variables)
    with connect(address) as connection:
        rows = connection.execute("select item_id from rec.item_vectors").fetchall()
    assert rows == [("a",)]


@pytest.mark.slow
def test_the_image_writes_nothing_beside_its_database(image: Image) -> None:
    image.run("encoder", "check")
    assert list(image.home.rglob("*")) == []


@pytest.mark.slow
def test_the_worker_of_the_stack_becomes_healthy_and_stops_when_told(
    image: Image, address: dict[str, str]
) -> None:
    command, variables = in_the_stack("migrate", address)
    image.run(*command, **variables)
    command, variables = in_the_stack("worker", address)
    port = str(free_port())
    worker = image.start(*command, **variables, PGREC_METRICS_PORT=port)
    try:
        assert becomes_healthy(worker, image, port)
        worker.send_signal(signal.SIGTERM)
        _, log = worker.communicate(timeout=STOP_S)
    finally:
        worker.kill()
        worker.wait()
    assert worker.returncode == 0, log
    assert json.loads(log.splitlines()[-1])["event"] == "worker stops"


def becomes_healthy(worker: subprocess.Popen[str], image: Image, port: str) -> bool:
    """Repeat the stack's health check, at another port, until it passes."""
    kind, *check = services()["worker"]["healthcheck"]["test"]
    assert kind == "CMD"
    assert ":9478/" in check[-1]
    check[-1] = check[-1].replace(":9478/", f":{port}/")
    deadline = monotonic() + START_S
    while monotonic() < deadline and worker.poll() is None:
        done = subprocess.run(check, env=image.environment, capture_output=True, check=False)
        if done.returncode == 0:
            return True
        sleep(0.5)
    return False


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def connect(address: dict[str, str]) -> psycopg.Connection[Any]:
    parts = {name: address[variable] for name, variable in SERVER.items() if variable in address}
    conninfo = make_conninfo(**parts, password=address["PGPASSWORD"])
    return psycopg.connect(conninfo, autocommit=True)
