from __future__ import annotations

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

ROOT: Final = Path(__file__).resolve().parents[1]
VERSION: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
ABOUT: Final = f"pgrec-{VERSION}.dist-info"
OURS_ALONE: Final = re.compile(r"(^|/)(tests?|test_[^/]*|conftest\.py|__pycache__)(/|$)")
SHIPPED: Final = ("rec_pkg", "worker", "migrations", "sql")


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
        assert wheel.read(inside) == path.read_bytes(), name
    names = wheel.namelist()
    data = {
        "rec_pkg/py.typed",
        "rec_pkg/demo/catalogue/items.jsonl",
        "rec_pkg/encoder/corpus.jsonl",
    }
    assert data | {"worker/__init__.py"} <= set(names)
    assert sum(name.startswith("rec_pkg/_schema/sql/") for name in names) > 1
    assert sum(name.startswith("rec_pkg/_schema/migrations/versions/") for name in names) > 0


def test_the_wheel_holds_nothing_else(wheel: ZipFile) -> None:
    names = wheel.namelist()
    assert {name.partition("/")[0] for name in names} == {"rec_pkg", "worker", ABOUT}
    assert not [name for name in names if OURS_ALONE.search(name)]


def test_the_wheel_brings_the_command_and_the_licence(wheel: ZipFile) -> None:
    assert "pgrec = rec_pkg.cli:app" in wheel.read(f"{ABOUT}/entry_points.txt").decode()
    assert wheel.read(f"{ABOUT}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
