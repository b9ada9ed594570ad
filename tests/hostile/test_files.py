"""Files that are broken in every way: what can be used is loaded, the rest is named by its line."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import strategies as st
from sqlalchemy import URL
from typer.testing import CliRunner

from rec_pkg.cli import app
from rec_pkg.database import LIBPQ_VARIABLES
from rec_pkg.encoder.records import E5_SMALL, EncoderRecord, load_record
from rec_pkg.errors import BadInput
from rec_pkg.evaluation.data import read_dataset
from rec_pkg.evaluation.protocols import make_plan
from tests.support.hostile_input import ODD_JSON, ODD_NUMBERS, contents, hold

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

    from tests.support.hostile_input import Connection

BOM: Final = b"\xef\xbb\xbf"
GOOD: Final = b"user_id,item_id,title\nu0,i1,ok\n"
FILES: Final = {
    "empty.csv": (b"", 1, "is empty"),
    "header.csv": (b"user_id,item_id\n", 0, ""),
    "bom.csv": (BOM + GOOD, 0, ""),
    "two_boms.csv": (BOM + BOM + GOOD, 1, ""),
    "utf16.csv": (GOOD.decode().encode("utf-16"), 1, ""),
    "utf16.jsonl": (b'{"user_id": "u0"}\n'.decode().encode("utf-16"), 1, ""),
    "latin1.csv": (GOOD + "u0,i2,caf\xe9\n".encode("latin-1"), 1, ":3: the row is not UTF-8"),
    "nul.csv": (GOOD + b"u0,i2,a\0b\n", 1, ":3: the row holds a NUL byte"),
    "nul_header.csv": (b"user_id,item\0_id\n", 1, ":1: the header holds a NUL byte"),
    "open_quote.csv": (GOOD + b'u0,i2,"open\nu0,i3,x\n', 1, ":3:"),
    "odd_quote.csv": (GOOD + b'u0,i2,"a"b\nu0,i3,x\n', 1, ":3:"),
    "quoted_header.csv": (b'"user_id,item_id\n', 1, ":1:"),
    "short_row.csv": (GOOD + b"u0\nu0,i2,x\n", 1, ":3: 1 fields, but the header has 3"),
    "long_row.csv": (GOOD + b"u0,i2,x,y,z\n", 1, ":3: 5 fields, but the header has 3"),
    "twice.csv": (b"user_id,item_id,user_id\n", 1, ":1: two columns are called user_id"),
    "nameless.csv": (b"user_id,item_id,\n", 1, ":1: a column has no name"),
    "no_id.csv": (b"name,title\na,b\n", 1, ":1: no column"),
    "semicolon.csv": (b"user_id;item_id\nu0;i1\n", 1, ":1: no column"),
    "huge_field.csv": (GOOD + b"u0,i2," + b"x" * (1 << 21) + b"\n", 1, ":3:"),
    "huge_id.csv": (GOOD + b"u0," + b"x" * 1001 + b",x\n", 1, ":3: item_id is longer than"),
    "one_line.csv": (b"x" * (1 << 22), 1, ":1:"),
    "carriage.csv": (GOOD.replace(b"\n", b"\r\n"), 0, ""),
    "control.csv": (GOOD + b"u0,i2,\x1b[2J\n", 0, ""),
    "array.jsonl": (b"[1, 2]\n", 1, ":1: not a JSON object"),
    "pretty.jsonl": (b'{\n"user_id": 1\n}\n', 1, ":1: not JSON"),
    "deep.jsonl": (b'{"item_id": "i1", "user_id": "u0", "a":' + b"[" * 99999 + b"\n", 1, ":1:"),
    "nan.jsonl": (b'{"user_id": "u0", "item_id": "i1", "value": NaN}\n', 1, ":1: NaN"),
    "half.jsonl": (b'{"user_id": "u0", "item_id": "\\ud800"}\n', 1, ":1: half of a surrogate"),
    "nested.jsonl": (b'{"user_id": {"a": 1}, "item_id": ["i1"]}\n', 1, ":1:"),
    "digits.jsonl": (b'{"user_id": 1' + b"0" * 5000 + b', "item_id": "i1"}\n', 1, ":1:"),
    "plain.csv.gz": (GOOD, 1, ""),
    "cut.csv.gz": (gzip.compress(GOOD, mtime=0)[:-9], 1, ""),
    "good.csv.gz": (gzip.compress(GOOD, mtime=0), 0, ""),
    "text.txt": (GOOD, 1, "the name ends in none of"),
}
"""Name of a file -> what is in it, the exit status of a load, and a part of what is said."""

YEARS: Final = ("0001-01-01", "1969-12-31T23:59:59", "2026-01-01", "9999-12-31T23:59:59", "-1e11")
SOME: Final = st.sampled_from(["u0", "u1", "", "x" * 1001, "é", "0", "null"])
ROW: Final = st.fixed_dictionaries(
    {},
    optional={
        "user_id": SOME,
        "item_id": st.sampled_from(["i1", "i2", "i3"]) | SOME,
        "kind": st.sampled_from(["click", "yawn", ""]),
        "value": st.sampled_from(ODD_NUMBERS),
        "text": SOME,
        "occurred_at": st.sampled_from([*YEARS, "soon", "", "infinity"]),
        "title": SOME,
        "attributes": st.sampled_from([text for text in ODD_JSON if len(text) < 10_000]),
        "history": st.sampled_from([[], ["i1"], ["i1", None], [["i1"]], "i1", {"i1": 1}]),
        "target": st.sampled_from(["i2", "nowhere", ""]),
    },
)


def run(db: Connection, *arguments: str) -> Result:
    where = {"host": db.info.host, "port": str(db.info.port)}
    url = URL.create("postgresql", db.info.user, database=db.info.dbname, query=where)
    environment = dict.fromkeys(LIBPQ_VARIABLES) | {
        "PGREC_DATABASE_URL": url.render_as_string(hide_password=False),
        "PGREC_ENCODER": "/nowhere",
        "COLUMNS": "200",
    }
    return CliRunner().invoke(app, arguments, env=environment)


def check(result: Result) -> None:
    crash = result.exception
    if crash is not None and not isinstance(crash, SystemExit):
        raise AssertionError(result.output) from crash
    assert "Traceback" not in result.output
    assert "\x1b" not in result.output


@pytest.mark.parametrize("what", ["events", "items"])
@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_named_with_its_line(
    db: Connection, tmp_path: Path, name: str, what: str
) -> None:
    content, status, said = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    before = contents(db)
    result = run(db, "load", what, str(path))
    check(result)
    if what == "events":
        assert result.exit_code == status, result.output
        assert said in result.stderr
    if result.stderr.startswith("pgrec: "):
        assert len(result.stderr.splitlines()) == 1
        assert contents(db) == before


def test_rows_of_nonsense_load_or_are_named(
    db: Connection, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    path = tmp_path / "rows.jsonl"

    def load(case: tuple[str, list[dict[str, Any]]]) -> None:
        what, rows = case
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        result = run(db, "load", what, str(path), "--json")
        check(result)
        report = json.loads(result.stdout)
        assert report["rows"] + report["rejected"] == len(rows)
        assert result.exit_code == (1 if report["rejected"] else 0)

    cases = st.tuples(st.sampled_from(["items", "events"]), st.lists(ROW, min_size=1, max_size=5))
    hold(pytestconfig, load, cases, quick=15, full=300)


def test_a_folder_of_nonsense_is_a_data_set_or_bad_input(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    def read(files: dict[str, list[dict[str, Any]]]) -> None:
        for name in NAMES:
            (tmp_path / f"{name}.jsonl").unlink(missing_ok=True)
        for name, rows in files.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / f"{name}.jsonl").write_text(text)
        try:
            found = read_dataset(tmp_path)
            for protocol in ("time", "loo", "rows"):
                make_plan(found, protocol, core=0, keep_seen=False)
        except BadInput as refused:
            assert len(str(refused).splitlines()) == 1  # noqa: PT017  # either is right

    items = [{"item_id": f"i{number}"} for number in range(4)]
    rows = st.lists(ROW, max_size=6)
    cases = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, rows)).map(
        lambda files: {"items": items} | files
    )
    hold(pytestconfig, read, cases, quick=60, full=1500)


NAMES: Final = ("items", "events", "valid", "test")


@pytest.mark.parametrize("name", ["events.csv", "items.csv", "items.jsonl", "valid.jsonl"])
@pytest.mark.parametrize("content", [content for content, _, _ in FILES.values()], ids=[*FILES])
def test_evaluating_a_folder_of_nonsense_says_so_in_one_line(
    db: Connection, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / "items.csv").write_bytes(b"item_id,title\ni1,a\ni2,b\n")
    (tmp_path / name).write_bytes(content)
    result = run(db, "evaluate", str(tmp_path))
    check(result)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("pgrec: ")


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_where_figures_cannot_be_written_is_said_before_anything_is_measured(
    db: Connection, tmp_path: Path, option: str
) -> None:
    result = run(db, "evaluate", str(tmp_path), option, str(tmp_path / "no" / "file"))
    check(result)
    assert result.exit_code == 1
    assert "file cannot be written" in result.stderr


def test_a_record_of_nonsense_is_bad_input_in_one_line(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    path = tmp_path / "record.json"
    good = E5_SMALL.model_dump(mode="json")
    odd = st.one_of(
        st.none(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=5),
        st.just([]),
        st.just({}),
        st.sampled_from(["../..", "/", "local", "hub", "\0", "a" * 5000]),
    )
    names = st.sampled_from([*good, "unknown"])

    def read(content: str) -> None:
        path.write_text(content, encoding="utf-8", errors="surrogatepass")
        try:
            assert isinstance(load_record(path), EncoderRecord)
        except BadInput as refused:
            assert len(str(refused).splitlines()) == 1  # noqa: PT017  # either is right

    cases = st.sampled_from(ODD_JSON) | st.dictionaries(names, odd, min_size=1, max_size=3).map(
        lambda changed: json.dumps(good | changed)
    )
    hold(pytestconfig, read, cases, quick=60, full=1500)
