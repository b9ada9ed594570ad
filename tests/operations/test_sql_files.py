"""The files that a migration runs: all of them, each once, and released ones as they were."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import pytest

from rec_pkg import schema

if TYPE_CHECKING:
    from pathlib import Path


def test_every_file_of_sql_is_applied_exactly_once() -> None:
    home = schema.folder("sql")
    applied = [path.relative_to(home).as_posix() for path in schema.sql_files()]
    assert sorted(applied) == sorted(
        path.relative_to(home).as_posix() for path in home.rglob("*.sql")
    )


def test_every_folder_of_sql_holds_a_subject_and_not_a_heap() -> None:
    sizes = {
        folder.name: len(list(folder.glob("*.sql")))
        for folder in schema.folder("sql").iterdir()
        if folder.is_dir()
    }
    assert {name: size for name, size in sizes.items() if not 0 < size <= 8} == {}


def changed(migrations: Path) -> list[str]:
    """Released revisions that are gone or are not what was released."""
    found = []
    for line in (migrations / "released.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        entry = re.fullmatch(r"([0-9a-f]{64})  (versions/\w+\.py)", line)
        assert entry, f"no digest and file: {line}"
        path = migrations / entry[2]
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry[1]:
            found.append(entry[2])
    return found


def test_no_released_revision_is_edited() -> None:
    assert changed(schema.folder("migrations")) == []


def test_a_revision_that_was_edited_or_is_gone_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    lines = ["# sha256 and file"]
    for name in ("0001_same", "0002_edited", "0003_gone"):
        path = tmp_path / "versions" / f"{name}.py"
        path.write_text(name)
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  versions/{name}.py")
    (tmp_path / "released.txt").write_text("\n".join(lines))
    assert changed(tmp_path) == []
    (tmp_path / "versions" / "0002_edited.py").write_text("something else")
    (tmp_path / "versions" / "0003_gone.py").unlink()
    assert changed(tmp_path) == ["versions/0002_edited.py", "versions/0003_gone.py"]
    (tmp_path / "released.txt").write_text("0001_same.py")
    with pytest.raises(AssertionError, match="no digest"):
        changed(tmp_path)
