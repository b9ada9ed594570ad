# pgrec as a container: the worker and every other command. The image includes the encoder's files,
# so that a container needs no network except the database's.

FROM python:3.12.14-slim-trixie AS build

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY rec_pkg rec_pkg
COPY sql sql
COPY worker worker
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip wheel --no-deps --wheel-dir /dist .

ENV PGREC_CACHE_DIR=/opt/pgrec/cache ORT_DISABLE_TELEMETRY=1
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/pgrec \
    && /opt/pgrec/bin/pip install "$(echo /dist/pgrec-*.whl)[encoder]"
RUN /opt/pgrec/bin/pgrec encoder fetch

FROM python:3.12.14-slim-trixie

RUN useradd --uid 10001 --create-home pgrec
COPY --from=build /opt/pgrec /opt/pgrec
ENV PATH=/opt/pgrec/bin:$PATH PGREC_CACHE_DIR=/opt/pgrec/cache
# Without this, onnxruntime sends telemetry and keeps an id for it in ~/.cache.
ENV ORT_DISABLE_TELEMETRY=1 HF_HUB_OFFLINE=1
USER 10001
WORKDIR /home/pgrec
ENTRYPOINT ["pgrec"]
CMD ["--help"]
