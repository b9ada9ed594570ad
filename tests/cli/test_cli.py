from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from rec_pkg.cli import app
from rec_pkg.database import LIBPQ_VARIABLES
from rec_pkg.database.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    from typer.testing import Result

    Run = Callable[..., Result]

COMMANDS = [
    ["evaluate"],
    ["up"],
    ["down"],
    ["psql"],
    ["migrate"],
    ["load", "items"],
    ["load", "events"],
    ["load", "vectors"],
    ["worker"],
    ["recommend"],
    ["explain"],
    ["track"],
    ["similar"],
    ["forget"],
    ["export"],
    ["undo"],
    ["pause"],
    ["resume"],
    ["vacuum"],
    ["retain"],
    ["release"],
    ["retry"],
    ["calibrate"],
    ["tune"],
    ["encoder", "list"],
    ["encoder", "fetch"],
    ["encoder", "check"],
    ["status"],
    ["doctor"],
    ["demo"],
]
UNSET = dict.fromkeys(("PGREC_DATABASE_URL", "PGREC_DATA_DIR", *LIBPQ_VARIABLES))
PGREC = [sys.executable, "-c", "from rec_pkg.cli import app; app()"]
ITEMS = "item_id,title,brand\na,Blue jeans,Nord\nb,[bold]Red\x1b[2J dress,Nord\nc,牛仔裤,Süd\n"


@pytest.fixture
def run(database_url: str) -> Run:
    """Run pgrec in this process on a fresh migrated database."""
    environment = UNSET | {"PGREC_DATABASE_URL": database_url, "COLUMNS": "120"}

    def run(*arguments: str, status: int = 0, **more: Any) -> Result:  # noqa: ANN401  # the runner's
        result = CliRunner().invoke(app, arguments, env=environment, **more)
        assert result.exit_code == status, result.output
        assert not isinstance(result.exception, Exception), result.exception
        return result

    return run


@pytest.fixture
def filled(run: Run, tmp_path: Path, db: psycopg.Connection[Any]) -> Run:
    """A catalogue of three items with vectors, and a user who clicked on the first."""
    path = tmp_path / "items.csv"
    path.write_text(ITEMS)
    run("load", "items", str(path), "--domain", "shop")
    db.execute(
        "insert into rec.item_vectors select item_id,"
        " array_prepend(1, array_fill(ascii(item_id) - 97, array[383]))::vector::halfvec"
        " from rec.items"
    )
    run("track", "ada", "a")
    return run


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account can reach, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="pgrec-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def from_json(result: Result) -> Any:  # noqa: ANN401  # JSON has no type
    return json.loads(result.stdout)


def outside(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name[:2] != "PG"}
    return subprocess.run(
        [*PGREC, *arguments],
        env=environment | {"PGREC_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 6


def test_the_version_is_that_of_the_distribution() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"pgrec {version('pgrec')}\n"


def test_help_does_not_wait_for_the_heavy_libraries() -> None:
    heavy = "{'onnx', 'onnxruntime', 'tokenizers', 'transformers'}"
    code = f"import sys, rec_pkg.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_items_are_loaded_and_counted(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    path.write_text("sku,name,price\n1,Jeans,59.90\n2,Dress,80\n1,Jeans,49.90\n")
    arguments = ["load", "items", str(path), "--map", "item_id=sku", "--map", "title=name"]
    result = run(*arguments, "--domain", "shop", "--number", "price")
    assert result.stdout == "items: 2 inserted, 1 repeated in the file\n"
    assert result.stderr == ""
    assert from_json(run(*arguments, "--domain", "shop", "--number", "price", "--json")) == {
        "rows": 3,
        "inserted": 0,
        "updated": 0,
        "unchanged": 2,
        "repeated": 1,
        "rejected": 0,
        "ignored": [],
    }


def test_bad_rows_are_shown_and_make_the_status(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    rows = "".join(f"ada,,{n}\n" for n in range(150))
    path.write_text("user_id,item_id,note\nada,a,\n" + rows)
    result = run("load", "events", str(path), "--kind", "view", status=1)
    assert result.stdout == "events: 1 inserted, 150 bad rows; ignored columns: note\n"
    shown = result.stderr.splitlines()
    assert shown[0] == f"{path}:3: neither item_id nor text"
    assert len(shown) == 101
    assert from_json(run("load", "events", str(path), "--json", status=1))["rejected"] == 150


@pytest.mark.parametrize(
    "arguments",
    [
        ["load", "items"],
        ["load", "items", "nowhere.csv"],
        ["load", "items", __file__, "--map", "title"],
        ["load", "items", __file__, "--map", "title=a", "--map", "title=b"],
        ["load", "events", __file__, "--map", "title=a"],
        ["recommend", "ada", "-k", "-1"],
        ["recommend", "ada", "--filter", "[1]"],
        ["recommend", "ada", "--filter", "{"],
        ["recommend", "ada", "--diversity", "2"],
        ["track", "ada", "a", "--at", "soon"],
        ["undo", "ada", "first"],
        ["dance"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2(run: Run, arguments: list[str]) -> None:
    assert "Error" in run(*arguments, status=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["load", "items", __file__], "the name ends in none of .csv"),
        (["track", "ada", "a", "--kind", "stare"], "unknown event kind 'stare'. The kinds are"),
        (["track", "ada"], "an event needs an item_id or a text"),
        (["explain", "ada", "atlantis"], "No item has this id"),
        (["undo", "ada", "1"], "ada has no event 1"),
        (["encoder", "check", "atlantis"], "atlantis is neither a readable file nor one of"),
        (["migrate", "--down", "atlantis", "--yes"], "atlantis"),
        (["down"], "not ours to stop"),
    ],
    ids=str,
)
def test_an_error_is_one_line_and_status_1(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments, status=1)
    assert result.stdout == ""
    assert result.stderr.startswith("pgrec: ")
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr


def test_a_click_shows_in_the_recommendations(filled: Run) -> None:
    rows = from_json(filled("recommend", "ada", "--json"))
    assert [row["item_id"] for row in rows] == ["b", "c"]
    assert rows[0]["content"] > rows[1]["content"]
    assert set(rows[0]) >= {"rank", "title", "domain", "score", "transition", "trend", "path"}
    seen = from_json(filled("recommend", "ada", "--include-seen", "-k", "1", "--json"))
    assert [row["item_id"] for row in seen] == ["a"]
    some = ["recommend", "ada", "--filter", '{"brand": "Süd"}', "--domain", "shop", "--json"]
    assert [row["item_id"] for row in from_json(filled(*some))] == ["c"]
    assert from_json(filled("recommend", "ada", "--domain", "film", "--json")) == []


def test_tables_show_titles_as_they_are_but_steer_no_terminal(filled: Run) -> None:
    shown = filled("recommend", "ada").stdout
    assert "[bold]Red" in shown
    assert "牛仔裤" in shown
    assert "\x1b" not in shown


def test_the_shares_add_up_to_the_score(filled: Run) -> None:
    score = from_json(filled("recommend", "ada", "--json"))[0]["score"]
    shares = from_json(filled("explain", "ada", "b", "--json"))
    assert sum(share["share"] for share in shares) == pytest.approx(score)
    assert f"score {score:.3f}" in filled("explain", "ada", "b").stdout


def test_similar_items_leave_out_the_item_itself(filled: Run) -> None:
    assert [row["item_id"] for row in from_json(filled("similar", "a", "--json"))] == ["b", "c"]
    assert "Red" in filled("similar", "a").stdout


@pytest.mark.clock
def test_track_says_everything_about_an_event(run: Run, db: psycopg.Connection[Any]) -> None:
    said = ["track", "ada", "a", "--kind", "rating", "--value", "4.5", "--text", "fits"]
    said += ["--at", "2024-03-01T10:00:00Z", "--dedupe-key", "k"]
    first = from_json(run(*said, "--json"))
    assert from_json(run(*said, "--json")) == first
    assert run(*said).stdout == f"{first['event_id']}\n"
    assert db.execute(
        "select user_id, item_id, kind, value, text, occurred_at, dedupe_key from rec.events"
    ).fetchall() == [("ada", "a", "rating", 4.5, "fits", datetime(2024, 3, 1, 10, tzinfo=UTC), "k")]


def test_a_user_may_see_take_back_and_erase(filled: Run) -> None:
    event = from_json(filled("export", "ada"))["events"][0]
    assert event["item_id"] == "a"
    filled("undo", "ada", str(event["event_id"]))
    assert from_json(filled("export", "ada"))["events"] == []
    filled("track", "ada", "b")
    filled("forget", "ada", status=1, input="n\n")
    assert len(from_json(filled("export", "ada"))["events"]) == 1
    assert from_json(filled("forget", "ada", "--yes", "--json")) == {"events": 1}
    assert from_json(filled("export", "ada"))["events"] == []


def test_what_was_given_up_is_retried(run: Run, db: psycopg.Connection[Any]) -> None:
    run("track", "ada", "unknown")
    db.execute("select rec.apply_pending()")
    assert "1" in run("status").stdout
    assert from_json(run("status", "--json"))["parked"] == 1
    assert from_json(run("retry", "--json")) == {"events": 1, "items": 0}
    assert from_json(run("status", "--json"))["parked"] == 0


def test_a_catalogue_is_calibrated_and_the_calibration_taken_back(
    filled: Run, db: psycopg.Connection[Any]
) -> None:
    assert "run `pgrec worker` first" in filled("calibrate", status=1).stderr
    db.execute("select rec_internal.register_encoder(%s, 'made up', '{}', 384)", ["a" * 64])
    assert "3 items wait for a vector" in filled("calibrate", status=1).stderr
    assert "not calibrated" in filled("calibrate", "--off").stdout
    db.execute("insert into rec.items (item_id) select 'more ' || n from generate_series(1, 765) n")
    db.execute(
        "insert into rec.item_vectors"
        " select item_id, l2_normalize(array_agg(random())::vector)::halfvec"
        " from rec.items cross join generate_series(1, 384) where item_id like 'more %'"
        " group by item_id"
    )
    db.execute("update rec.items set encoded_hash = content_hash")
    db.execute("select rec.apply_pending()")
    moved = "vectors of 768 items and 0 texts moved, interests of 1 users rebuilt"
    assert moved in filled("calibrate", "--ridge", "0.2").stdout
    calibrated = from_json(filled("calibrate", "--json"))
    assert calibrated == {
        "items": 768,
        "texts": 0,
        "users": 1,
        "fingerprint": from_json(filled("status", "--json"))["fingerprint"],
    }
    assert from_json(filled("calibrate", "--off", "--json"))["fingerprint"] == "a" * 64
    assert "ridge 0" in filled("calibrate", "--ridge", "0", status=1).stderr


def test_migrate_goes_back_only_when_told_twice(run: Run) -> None:
    run("migrate", "--down", "base", status=1, input="n\n")
    run("status")
    run("migrate", "--down", "base", "--yes")
    assert "pgrec migrate" in run("status", status=1).stderr
    run("migrate")
    run("status")


def test_up_and_down_rule_the_embedded_server(folder: Path) -> None:
    environment = UNSET | {"PGREC_DATA_DIR": str(folder), "PGREC_PG_BIN": None}

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env=environment)

    server = EmbeddedServer(folder)
    try:
        assert "pgrec up" in run("status").stderr
        assert server.url in run("up").stdout
        assert run("up").exit_code == 0
        assert run("down").stdout == "The embedded server is down.\n"
        assert run("down").stdout == "The embedded server was not up.\n"
        assert from_json(run("status", "--json"))["events"] == 0
    finally:
        server.stop("immediate")
        shutil.rmtree(server.home)


def test_psql_opens_on_the_database(database_url: str) -> None:
    done = outside(database_url, "psql", "-At", "-c", "select items from rec.status")
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)


def test_psql_gets_the_password_by_the_environment(folder: Path) -> None:
    psql = folder / "psql"
    psql.write_text('#!/bin/sh\necho "$PGPASSWORD" "$@"\n')
    psql.chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "PGREC_DATABASE_URL": "postgresql://a:s3@b/c"}
    shown = subprocess.run(
        [*PGREC, "psql", "-l"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert shown.startswith("s3 --dbname=")
    assert shown.endswith(" -l\n")
    assert "s3" not in shown.removeprefix("s3")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PGREC_DATABASE_URL", "s3cret"), ("PGREC_THREADS", "s3cret"), ("PGREC_POLL_SECONDS", "-1")],
)
def test_a_bad_setting_is_named_and_not_shown(name: str, value: str) -> None:
    result = CliRunner().invoke(app, ["status"], env=UNSET | {name: value})
    assert result.exit_code == 1
    assert name in result.stderr
    assert value not in result.stderr


def test_an_unreachable_server_is_one_line_without_the_password() -> None:
    done = outside("postgresql://ada:s3cret@127.0.0.1:1/shop", "recommend", "ada", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pgrec: No connection to the database")
    assert len(done.stderr.splitlines()) == 1
    assert "s3cret" not in done.stderr


def test_what_the_server_forbids_is_one_line(run: Run, db: psycopg.Connection[Any]) -> None:
    db.execute("drop function rec.retry_items()")
    result = run("retry", status=1)
    assert "rec.retry_items() does not exist" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_who_lacks_a_right_is_told_of_the_roles(
    database_url: str, db: psycopg.Connection[Any]
) -> None:
    db.execute("create role stranger login")
    try:
        url = make_url(database_url).update_query_dict({"options": "-crole=stranger"})
        done = outside(url.render_as_string(hide_password=False), "recommend", "ada")
        assert done.returncode == 1
        assert "permission denied" in done.stderr
        assert "grant it rec_app, rec_worker" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    finally:
        db.execute("drop role stranger")


def test_ctrl_c_is_status_130_without_a_traceback(database_url: str, tmp_path: Path) -> None:
    pipe = tmp_path / "endless.csv"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [*PGREC, "load", "events", str(pipe)],
        env=os.environ | {"PGREC_DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process, pipe.open("wb", buffering=0) as writing:
        writing.write(b"user_id,item_id\n")
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (130, b"")
    assert b"Traceback" not in stderr
