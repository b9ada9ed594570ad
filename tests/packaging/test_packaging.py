from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zipfile import ZipFile

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rec_pkg.encoder import Encoder

ROOT: Final = Path(__file__).resolve().parents[2]
VERSION: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
ABOUT: Final = f"pgrec-{VERSION}.dist-info"
OURS_ALONE: Final = re.compile(r"(^|/)(tests?|test_[^/]*|conftest\.py|__pycache__)(/|$)")
SHIPPED: Final = ("rec_pkg", "worker/pgrec_worker", "migrations", "sql")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--wheel-dir", folder, ROOT)
    subprocess.run(pip, check=True)
    (path,) = folder.glob("*.whl")
    with ZipFile(path) as opened:
        yield opened


def test_the_wheel_holds_every_file_of_packages_sql_and_migrations_as_it_is(wheel: ZipFile) -> None:
    sources = [
        path
        for folder in SHIPPED
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    for path in sources:
        name = path.relative_to(ROOT).as_posix()
        inside = f"rec_pkg/_schema/{name}" if name.startswith(("migrations", "sql")) else name
        inside = inside.removeprefix("worker/")
        assert wheel.read(inside) == path.read_bytes(), name
    names = wheel.namelist()
    data = {
        "rec_pkg/py.typed",
        "rec_pkg/demo/catalogue/items.jsonl",
        "rec_pkg/encoder/corpus.jsonl",
    }
    assert data | {"pgrec_worker/__init__.py"} <= set(names)
    assert sum(name.startswith("rec_pkg/_schema/sql/") for name in names) > 1
    assert sum(name.startswith("rec_pkg/_schema/migrations/versions/") for name in names) > 0


def test_the_wheel_holds_nothing_else(wheel: ZipFile) -> None:
    names = wheel.namelist()
    assert {name.partition("/")[0] for name in names} == {"rec_pkg", "pgrec_worker", ABOUT}
    assert not [name for name in names if OURS_ALONE.search(name)]


def test_the_wheel_brings_the_command_and_the_licence(wheel: ZipFile) -> None:
    assert "pgrec = rec_pkg.cli:app" in wheel.read(f"{ABOUT}/entry_points.txt").decode()
    assert wheel.read(f"{ABOUT}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """The folder of an application whose modules are called as ours are."""
    for name in ("worker", "pgrec_worker", "rec_pkg"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the module of the application')\n")
    return tmp_path


def pgrec(folder: Path, database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a folder."""
    program = Path(sys.executable).with_name("pgrec")
    variables = os.environ | {"PGREC_DATABASE_URL": database_url, "PGREC_LOG_FORMAT": "json"}
    return subprocess.run(
        [program, *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_worker_runs_in_a_folder_with_modules_of_the_same_names(
    application: Path, database_url: str, encoder: Encoder
) -> None:
    del encoder  # its files are there
    run = pgrec(application, database_url, "worker", "--once")
    assert run.returncode == 0, run.stderr
    assert "worker stops" in run.stderr


@pytest.mark.slow
def test_so_does_the_worker_that_the_demo_starts(
    application: Path, database_url: str, encoder: Encoder
) -> None:
    del encoder
    run = pgrec(application, database_url, "demo", "--database", database_url)
    assert run.returncode == 0, run.stderr
    assert "Lin does not like" in run.stdout
