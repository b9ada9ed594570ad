"""`pgrec encoder`: manages the models that turn texts into vectors."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Final

import typer

from rec_pkg.cli.options import AsJson  # noqa: TC001  # typer reads it
from rec_pkg.cli.output import console, print_facts, print_json, print_table
from rec_pkg.cli.session import read_settings
from rec_pkg.errors import EncoderMissing

if TYPE_CHECKING:
    from rec_pkg.encoder.records import EncoderRecord
    from rec_pkg.settings import Settings

PROBES: Final = ("blue jeans", "蓝色牛仔裤", "a red dress", "the history of Rome") * 4

app = typer.Typer(
    no_args_is_help=True, help="List, fetch and check the models that turn texts into vectors."
)

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        help="A name from `pgrec encoder list`, or a record's path. Default: PGREC_ENCODER.",
        show_default=False,
    ),
]


@app.command("list")
def list_() -> None:
    """List the built-in encoders, and whether their files are on this machine."""
    from rec_pkg.encoder.records import BUILT_IN

    settings = read_settings()
    rows = [
        {
            "chosen": "*" if record.name == settings.encoder else "",
            "name": record.name,
            "dims": record.dims,
            "max_tokens": record.max_tokens,
            "source": record.source.kind,
            "here": _is_here(record, settings),
        }
        for record in BUILT_IN.values()
    ]
    headings = {"chosen": "", "name": "name", "dims": "dims", "max_tokens": "max tokens"}
    print_table(rows, headings | {"source": "source", "here": "on this machine"})


@app.command()
def fetch(name: Name = None) -> None:
    """Provide the files of an encoder; several processes may do so at the same time."""
    from rec_pkg.encoder import fetch as make_present

    settings = read_settings()
    record = _record(name, settings)
    folder = make_present(record, settings.cache_dir).folder
    console.print(f"{record.name} is in {folder}", soft_wrap=True)


@app.command()
def check(name: Name = None, *, as_json: AsJson = False) -> None:
    """
    Open an encoder, encode a few texts, and show its fingerprint.

    It must equal the fingerprint that `pgrec status` shows, because vectors of two encoders are
    never compared. After `pgrec calibrate`, status shows the fingerprint of encoder plus
    calibration.
    """
    from rec_pkg.encoder import Encoder

    settings = read_settings()
    record = _record(name, settings)
    encoder = Encoder(record, settings.cache_dir, settings.threads, settings.provider)
    began = perf_counter()
    encoder.encode(PROBES)
    facts = {
        "name": encoder.record.name,
        "dims": encoder.dims,
        "fingerprint": encoder.fingerprint,
        "provider": encoder.provider,
        "ms_per_short_text": round(1000 * (perf_counter() - began) / len(PROBES), 2),
    }
    if as_json:
        print_json(facts)
    else:
        print_facts({key.replace("_", " "): value for key, value in facts.items()})


def _record(name: str | None, settings: Settings) -> EncoderRecord:
    from rec_pkg.encoder.records import load_record

    return load_record(name or settings.encoder)


def _is_here(record: EncoderRecord, settings: Settings) -> str:
    from rec_pkg.encoder.files import find_files

    try:
        find_files(record, settings.cache_dir)
    except EncoderMissing:
        return "no: pgrec encoder fetch " + record.name
    return "yes"
