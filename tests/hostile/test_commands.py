"""Every command of pgrec with arguments that nobody should give: one clear line, no traceback."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pytest
import typer
from hypothesis import strategies as st
from sqlalchemy import URL
from typer.testing import CliRunner

from rec_pkg.cli import app
from rec_pkg.database import LIBPQ_VARIABLES
from tests.support.hostile_input import (
    ITEMS,
    ODD_JSON,
    ODD_TIMES,
    USERS,
    beyond_text,
    contents,
    hold,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypothesis.strategies import SearchStrategy
    from typer.testing import Result

    from tests.support.hostile_input import Connection

LEFT_OUT: Final = {
    "demo": "plays its story, whatever database it is given",
    "down": "takes no arguments",
    "psql": "becomes psql and hands its arguments on",
    "up": "takes no arguments",
}
"""Commands that read nothing of the command line themselves, and why."""

VALUES: Final = st.one_of(
    beyond_text,
    st.sampled_from(USERS + ITEMS),
    st.sampled_from(["0", "-1", "1e9", "NaN", "inf", str(2**70), "--", "-", "", "1_0", "٣"]),
    st.sampled_from([*ODD_TIMES, "-1", "1e400", "99999999999", "2026-02-30", "2026-01-01T25:00"]),
    st.sampled_from([text for text in ODD_JSON if len(text) < 10_000]),
    st.sampled_from(["[" * 100_000, "a=b", "=", "item_id=item_id", "atlantis", "/", ".", __file__]),
)
STEERING: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
NEVER: Final = {"--help", "--version", "--yes", "--down", "--json"}
"""Options that are tried elsewhere: they ask nothing of their value, or are meant to destroy."""


def commands(group: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)
        elif name not in LEFT_OUT:
            yield (*names, name), command


COMMANDS: Final = dict(commands(typer.main.get_command(app)))


@pytest.fixture(scope="module")
def environment(db: Connection, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """A database, and no encoder, so that nothing goes on for long."""
    empty = tmp_path_factory.mktemp("empty")
    unset = dict.fromkeys(LIBPQ_VARIABLES)
    return unset | {
        "PGREC_DATABASE_URL": address(db),
        "PGREC_ENCODER": str(empty / "encoder.json"),
        "PGREC_CACHE_DIR": str(empty),
        "PGREC_DATA_DIR": str(empty),
    }


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_a_command_does_it_or_says_in_one_line_why_not(
    db: Connection,
    environment: dict[str, str | None],
    pytestconfig: pytest.Config,
    names: tuple[str, ...],
) -> None:
    def keeps_its_word(arguments: list[str]) -> None:
        before = contents(db)
        result = CliRunner().invoke(app, [*names, *arguments], env=environment, input="y\n")
        check(result)
        if result.exit_code:
            assert contents(db) == before

    hold(pytestconfig, keeps_its_word, lines(COMMANDS[names]), quick=10, full=250)


@pytest.mark.parametrize("revision", ["atlantis", "", "0002\n", "+99", "a:b", "\ud800", "0" * 300])
def test_there_is_no_way_back_to_a_revision_that_is_none(
    db: Connection, environment: dict[str, str | None], revision: str
) -> None:
    before = contents(db)
    result = CliRunner().invoke(app, ["migrate", "--down", revision, "--yes"], env=environment)
    check(result)
    assert result.exit_code
    assert contents(db) == before


NONSENSE: Final = st.sampled_from(["", " ", "nonsense", "-1", "0", "NaN", "inf", "1e999", "\udc80"])
VARIABLES: Final = {
    "PGREC_DATABASE_URL": st.sampled_from(
        ["", "nonsense", "mysql://x", "postgresql://%zz@h/x", "postgresql://h:port/", "host=' x"]
    ),
    "PGREC_DATA_DIR": NONSENSE,
    "PGREC_CACHE_DIR": NONSENSE | st.just("/dev/null/x"),
    "PGREC_PG_BIN": NONSENSE,
    "PGREC_ENCODER": NONSENSE | st.sampled_from(["/", "/dev/null", "e5-small\n", "../" * 99]),
    "PGREC_THREADS": NONSENSE,
    "PGREC_FOLD_BATCH": NONSENSE | st.just(str(2**70)),
    "PGREC_ENCODE_BATCH": NONSENSE | st.just(str(2**70)),
    "PGREC_POLL_SECONDS": NONSENSE,
    "PGREC_METRICS_HOST": NONSENSE | st.just("256.0.0.1"),
    "PGREC_METRICS_PORT": NONSENSE | st.just("65536"),
    "PGREC_LOG_FORMAT": NONSENSE,
}


@pytest.mark.parametrize(
    "arguments", [["status"], ["worker", "--once"], ["encoder", "list"]], ids=" ".join
)
def test_settings_that_make_no_sense_are_named(
    environment: dict[str, str | None], pytestconfig: pytest.Config, arguments: list[str]
) -> None:
    def are_named(settings: dict[str, str]) -> None:
        check(CliRunner().invoke(app, arguments, env=environment | settings))

    cases = st.fixed_dictionaries({}, optional=VARIABLES).filter(bool)
    hold(pytestconfig, are_named, cases, quick=15, full=300)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PGREC_THREADS", "1e9"),
        ("PGREC_THREADS", "99999"),
        ("PGREC_FOLD_BATCH", "0"),
        ("PGREC_FOLD_BATCH", str(2**70)),
        ("PGREC_ENCODE_BATCH", "-1"),
        ("PGREC_ENCODE_BATCH", str(2**31)),
        ("PGREC_POLL_SECONDS", "NaN"),
        ("PGREC_POLL_SECONDS", "inf"),
        ("PGREC_POLL_SECONDS", "0"),
        ("PGREC_METRICS_PORT", "65536"),
        ("PGREC_LOG_FORMAT", "xml"),
        ("PGREC_DATABASE_URL", "nonsense"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(
    environment: dict[str, str | None], name: str, value: str
) -> None:
    result = CliRunner().invoke(app, ["worker", "--once"], env=environment | {name: value})
    check(result)
    assert result.exit_code == 1
    assert name in result.stderr


def address(db: Connection) -> str:
    where = {"host": db.info.host, "port": str(db.info.port)}
    url = URL.create("postgresql", db.info.user, database=db.info.dbname, query=where)
    return url.render_as_string(hide_password=False)


def lines(command: Any) -> SearchStrategy[list[str]]:  # noqa: ANN401  # of typer's own click
    """Arguments of a command: most of those that it needs, some of those that it knows."""
    parts = [
        st.just([]) | VALUES.map(lambda value: [value])
        if parameter.param_type_name == "argument"
        else options(parameter)
        for parameter in command.params
        if not NEVER & set(parameter.opts)
    ]
    more: SearchStrategy[list[str]] = st.just([]) | VALUES.map(lambda value: [value])
    return st.tuples(*parts, more).map(lambda several: [part for some in several for part in some])


def options(parameter: Any) -> SearchStrategy[list[str]]:  # noqa: ANN401  # the same
    name = parameter.opts[-1]
    if parameter.is_flag:
        return st.sampled_from([[], [], [name]])
    return st.one_of(st.just([]), st.just([]), VALUES.map(lambda value: [name, value]))


def check(result: Result) -> None:
    """Pass if the command did it, or if its last words are one line that says why it did not."""
    crash = result.exception
    if crash is not None and not isinstance(crash, SystemExit):
        raise AssertionError(result.output) from crash
    assert result.exit_code in {0, 1, 2}, result.output
    assert "Traceback" not in result.output
    assert result.exit_code == 2 or not STEERING.search(result.output), result.output
    if result.exit_code == 2:
        assert "Error" in result.stderr
    if result.exit_code == 1 and " red" not in result.stdout:  # which is what doctor is for
        said = result.stderr.rstrip("\n").split("\n")
        assert "pgrec: " in said[-1] or "Aborted." in said[-1], result.output
        assert sum("pgrec: " in line for line in said) <= 1
