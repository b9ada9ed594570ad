from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector
from typer.testing import CliRunner

from rec_pkg import loading
from rec_pkg.cli import app
from rec_pkg.encoder.calibration import Calibration
from rec_pkg.errors import BadInput, LoadStopped
from rec_pkg.loading import vectors
from rec_pkg.loading.vectors import VectorReport, load_vectors

if TYPE_CHECKING:
    from pathlib import Path

    from rec_pkg.loading.files import Rejection

    Db = psycopg.Connection[tuple[Any, ...]]

DIMS = 384
OURS, BENEATH = "a" * 64, "b" * 64
COPY = "copy rec.item_vectors from stdin with (format binary)"
INDEX = "select count(*) from pg_indexes where indexname = 'item_vectors_hnsw'"


def one(db: Db, query: str, *parameters: object) -> Any:  # noqa: ANN401  # whatever is asked
    row = db.execute(query, parameters).fetchone()
    assert row
    return row[0]


def vector(place: int) -> list[float]:
    return [round(x, 2) for x in np.random.default_rng(place).standard_normal(DIMS).tolist()]


@pytest.fixture
def shop(db: Db) -> Db:
    """Seven items that wait for vectors, under an encoder that is active already."""
    db.execute("select rec_internal.register_encoder(%s, 'test', '{}', %s)", [OURS, DIMS])
    db.execute("insert into rec.items (item_id, title) select n, n from generate_series(0, 6) n")
    return db


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path, 7)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CHUNK", 2)


def written(folder: Path, rows: int) -> Path:
    lines = [json.dumps({"item_id": n, "embedding": vector(n)}) for n in range(rows)]
    file = folder / f"{rows}.jsonl"
    file.write_text("\n".join(lines))
    return file


def counts(report: VectorReport) -> tuple[int, int, int]:
    return (report.inserted, report.updated, report.unchanged)


def end_session(url: str, db: Db) -> None:
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 5000)", [db.info.backend_pid])


def test_loaded_vectors_serve_as_if_a_worker_had_encoded_the_items(shop: Db, path: Path) -> None:
    assert counts(load_vectors(shop, path, OURS)) == (7, 0, 0)
    assert one(shop, "select items_to_encode from rec_internal.queue") == 0
    query = "select item_id from rec.nearest(%s::vector, 1)"
    assert one(shop, query, str(vector(5))) == "5"
    assert one(shop, "select min(l2_norm(embedding)) from rec.item_vectors") > 0.999


def test_loading_vectors_again_changes_nothing_and_a_changed_one_alone_is_written(
    shop: Db, path: Path
) -> None:
    load_vectors(shop, path, OURS)
    rows = "select array_agg(xmin::text order by item_id) from rec.item_vectors"
    before = one(shop, rows)
    assert counts(load_vectors(shop, path, OURS)) == (0, 0, 7)
    assert one(shop, rows) == before
    with path.open("a") as file:
        file.write("\n" + json.dumps({"item_id": "3", "embedding": vector(33)}))
    assert counts(load_vectors(shop, path, OURS)) == (0, 1, 6)


@pytest.mark.usefixtures("small_chunks")
def test_the_index_is_made_after_the_first_load_and_stays_in_later_ones(
    shop: Db, path: Path, tmp_path: Path
) -> None:
    seen: list[tuple[str, int]] = []

    def look(what: str, *_: int) -> None:
        seen.append((what, one(shop, INDEX)))

    load_vectors(shop, written(tmp_path, 5), OURS, on_progress=look)
    assert seen == [("read", 0)] * 3 + [("index", 0)]
    seen.clear()
    load_vectors(shop, path, OURS, on_progress=look)
    assert {indexes for _, indexes in seen} == {1}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("dies_in", "kept"), [("read", 2), ("index", 7)])
def test_a_load_whose_session_is_killed_is_gone_on_with(
    shop: Db, database_url: str, path: Path, dies_in: str, kept: int
) -> None:
    def kill(what: str, *_: int) -> None:
        if what == dies_in:
            end_session(database_url, shop)

    with pytest.raises(LoadStopped):
        load_vectors(shop, path, OURS, on_progress=kill)
    with psycopg.connect(database_url, autocommit=True) as db:
        assert one(db, "select count(*) from rec.item_vectors") == kept
        assert one(db, INDEX) == 0
        assert counts(load_vectors(db, path, OURS)) == (7 - kept, 0, kept)
        assert one(db, INDEX) == 1


def test_several_processes_make_the_index_and_tell_how_far_they_are(
    shop: Db, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "LOOK_S", 0.01)
    shop.execute("drop index rec.item_vectors_hnsw")
    shop.execute("insert into rec.items (item_id) select 'i' || n from generate_series(1, 3000) n")
    with shop.cursor() as cursor, cursor.copy(COPY) as copy:
        copy.set_types(["text", "halfvec"])
        for n in range(3000):
            copy.write_row((f"i{n + 1}", HalfVector(vector(n))))
    shop.execute("set min_parallel_table_scan_size = '64kB'")
    shop.execute("set client_min_messages = debug1")
    said: list[str | None] = []
    shop.add_notice_handler(lambda notice: said.append(notice.message_primary))
    told: list[tuple[int, int]] = []
    load_vectors(
        shop,
        path,
        OURS,
        workers=2,
        memory="128MB",
        on_progress=lambda what, *far: told.append(far) if what == "index" else None,
    )
    assert "using 2 parallel workers" in said
    assert any(0 <= done <= total for done, total in told if total)


def test_vectors_of_another_encoder_are_refused(shop: Db, path: Path) -> None:
    for fingerprint in ("b" * 64, "a" * 11, ""):
        with pytest.raises(BadInput, match="aaaaaaaaaaaa are stored here"):
            load_vectors(shop, path, fingerprint)
    assert one(shop, "select count(*) from rec.item_vectors") == 0
    assert one(shop, INDEX) == 1


def test_what_is_asked_wrongly_leaves_the_index_as_it_is(
    shop: Db, path: Path, tmp_path: Path
) -> None:
    headed = tmp_path / "headed.csv"
    headed.write_text('item,vector\n1,"[1, 2]"\n')
    with pytest.raises(BadInput, match="item_id"):
        load_vectors(shop, headed, OURS)
    with pytest.raises(BadInput, match="4GB or 500MB"):
        load_vectors(shop, path, OURS, memory="4G")
    assert one(shop, INDEX) == 1


def test_before_the_first_worker_there_is_no_encoder_to_compare_with(db: Db, path: Path) -> None:
    with pytest.raises(BadInput, match="no encoder is active yet"):
        load_vectors(db, path, OURS)


def test_vectors_of_the_encoder_are_moved_into_a_calibrated_space(shop: Db, path: Path) -> None:
    matrix = np.diag(np.linspace(1, 3, DIMS)).astype(np.float32)
    fitted = Calibration(np.full(DIMS, 0.01, np.float32), matrix)
    active = one(shop, "select rec_internal.activate_calibration(%s)", fitted.to_bytes())
    load_vectors(shop, path, OURS)
    unit = np.array([vector(2)], np.float32) / np.linalg.norm(vector(2))
    query = "select embedding <=> %s::vector::halfvec from rec.item_vectors where item_id = '2'"
    assert one(shop, query, str(fitted.apply(unit)[0].tolist())) < 1e-4
    shop.execute("truncate rec.item_vectors")
    load_vectors(shop, path, active)
    assert one(shop, query, str(unit[0].tolist())) < 1e-4


@pytest.mark.parametrize(
    ("embedding", "reason"),
    [
        ([1.0] * (DIMS - 1), "a list of 384 numbers"),
        ("nothing", "not JSON"),
        ({"a": 1}, "a list of 384 numbers"),
        ([[1.0]] * DIMS, "a list of 384 numbers"),
        (["x"] * DIMS, "not a number"),
        ([None] * DIMS, "no direction"),
        ([0] * DIMS, "no direction"),
        ([1e308] * DIMS, "no direction"),
    ],
)
def test_a_bad_vector_is_named_and_the_others_are_loaded(
    shop: Db, tmp_path: Path, embedding: object, reason: str
) -> None:
    file = tmp_path / "v.jsonl"
    rows = [{"item_id": "1", "embedding": embedding}, {"item_id": "2", "embedding": vector(2)}]
    file.write_text("\n".join(map(json.dumps, rows)))
    rejected: list[Rejection] = []
    report = load_vectors(shop, file, OURS, on_reject=rejected.append)
    assert (report.inserted, report.rejected) == (1, 1)
    assert reason in str(rejected[0])


def test_vectors_of_items_that_are_not_there_are_counted(shop: Db, tmp_path: Path) -> None:
    report = load_vectors(shop, written(tmp_path, 9), OURS)
    assert (report.inserted, report.unknown) == (7, 2)


def test_the_command_says_what_became_of_the_vectors(
    shop: Db, database_url: str, tmp_path: Path
) -> None:
    del shop
    file, environment = written(tmp_path, 9), {"PGREC_DATABASE_URL": database_url}
    command = ["load", "vectors", str(file), "--fingerprint", OURS[:12]]
    first = CliRunner().invoke(app, [*command, "--workers", "1"], env=environment)
    assert "7 inserted, 2 unknown" in first.output
    assert first.exit_code == 1
    again = CliRunner().invoke(app, [*command, "--json"], env=environment)
    assert json.loads(again.stdout)["unchanged"] == 7
