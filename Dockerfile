# syntax=docker/dockerfile:1
# One image for the API, the worker and the migrations. Targets: `cpu` (also the default) and `cuda`.

FROM ghcr.io/astral-sh/uv:0.13.9 AS uv

# ---- dependencies: exactly the lock, every file checked against its hash ----
FROM python:3.12-slim AS locked
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1 \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /build
RUN uv venv /opt/graftwork
ENV VIRTUAL_ENV=/opt/graftwork
COPY requirements.lock ./

FROM locked AS cpu-dependencies
# The registry's torch for Linux is linked against the CUDA libraries and does not import without cuDNN, cuBLAS and
# their like, on any machine. What it opens only when a GPU computes (triton alone is 1 GB) is left out here, about
# 1.3 GB of 5.4. `--no-deps` because the lock is complete, and what was left out must not come back.
RUN --mount=type=cache,target=/root/.cache/uv \
    awk '/^[A-Za-z0-9]/ { keep = ($0 !~ /^(triton|cuda-bindings|cuda-pathfinder|nvidia-cusolver|nvidia-cuda-cccl|nvidia-nvtx)==/) } keep' \
        requirements.lock > requirements.cpu.lock \
    && uv pip install --no-deps --require-hashes -r requirements.cpu.lock

FROM locked AS cuda-dependencies
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --require-hashes -r requirements.lock

# ---- our own wheel, built apart so that a change of code does not install torch again ----
FROM locked AS wheel
COPY requirements-dev.lock ./
# hatchling and what it needs, at the versions and hashes of the lock.
RUN --mount=type=cache,target=/root/.cache/uv \
    awk '/^[A-Za-z0-9]/ { keep = ($0 ~ /^(hatchling|packaging|pathspec|pluggy|trove-classifiers)==/) } keep' \
        requirements-dev.lock > requirements.build.lock \
    && uv pip install --no-deps --require-hashes -r requirements.build.lock
COPY pyproject.toml README.md ./
COPY app app
COPY worker worker
COPY migrations migrations
RUN uv build --wheel --no-build-isolation --out-dir /wheel

FROM cpu-dependencies AS cpu-environment
COPY --from=wheel /wheel /wheel
RUN uv pip install --no-deps /wheel/*.whl

FROM cuda-dependencies AS cuda-environment
COPY --from=wheel /wheel /wheel
RUN uv pip install --no-deps /wheel/*.whl

# ---- what runs: no compiler, no uv, no root ----
FROM python:3.12-slim AS runtime
# A fixed id, so that a volume keeps its owner when the image is rebuilt.
RUN groupadd --gid 10001 graft \
    && useradd --uid 10001 --gid graft --home-dir /data --no-create-home --shell /usr/sbin/nologin graft \
    && install -d -o graft -g graft -m 0750 /data
ENV PATH=/opt/graftwork/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GRAFT_HOME=/data \
    GRAFT_LOG_FORMAT=json
WORKDIR /data
VOLUME /data
USER 10001:10001
EXPOSE 8000
# For the API, which is what the image runs by default; docker-compose.yml gives the worker its own.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["graft", "api", "--host", "0.0.0.0", "--port", "8000"]

FROM runtime AS cuda
# The NVIDIA container toolkit mounts the driver; the CUDA libraries came with torch.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda-environment /opt/graftwork /opt/graftwork

FROM runtime AS cpu
COPY --from=cpu-environment /opt/graftwork /opt/graftwork
