"""Every file of examples/ runs as its first lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import as_file
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rec_pkg.database.embedded import EmbeddedServer
from rec_pkg.demo.story import CATALOGUE
from rec_pkg.loading import load_items
from rec_pkg.settings import Settings

if TYPE_CHECKING:
    import psycopg

    from rec_pkg.encoder import Encoder

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").iterdir() if path.is_file())


def run(*command: str, url: str) -> str:
    """What a program prints, run from the root of the repository."""
    environment = os.environ | {
        "PGREC_DATABASE_URL": url,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_example_is_left_out() -> None:
    assert EXAMPLES == ["psycopg_app.py", "shop.sql", "sqlalchemy_app.py"]


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.endswith(".py")])
def test_an_example_in_python_runs_on_the_sample_catalogue(
    db: psycopg.Connection[tuple[Any, ...]], database_url: str, name: str
) -> None:
    with as_file(CATALOGUE) as path:
        load_items(db, path)
    db.execute(
        "insert into rec.item_vectors select item_id, (select array_agg(random() - 0.5)"
        " from generate_series(1, 384) where item_id <> '')::vector::halfvec from rec.items"
    )
    told = run(sys.executable, f"examples/{name}", database_url, url=database_url)
    assert "click" in told
    assert db.execute("select count(*) from rec.events").fetchone() == (0,), "nothing is left"


def test_the_shop_in_psql_explains_its_list(
    db: psycopg.Connection[tuple[Any, ...]], database_url: str, encoder: Encoder
) -> None:
    del encoder  # its files are there
    psql = EmbeddedServer(Settings().data_dir, Settings().pg_bin).psql_path
    told = run(str(psql), database_url, "-f", "examples/shop.sql", url=database_url)
    assert "Why the tee?" in told
    assert "a light shirt for the summer" in told
    assert db.execute("select count(*) from rec.events").fetchone() == (0,), "nothing is left"
