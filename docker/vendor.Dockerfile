# The vendor: `docker compose up vendor` serves the bundled model, its books in the volume at /data.
# For an NVIDIA GPU:  docker build --file docker/vendor.Dockerfile --build-arg TORCH_INDEX=https://pypi.org/simple .
# For `compile` in a file of models: docker build --file docker/vendor.Dockerfile --build-arg COMPILER=g++ .
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS packages
# PyTorch for any CPU; PyPI's, for CUDA, brings gigabytes of NVIDIA's libraries with it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/tuition/bin:$PATH \
    PIP_CONSTRAINT=/source/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /source
COPY docker/constraints.txt ./
# The constraints pin everything, which hadolint does not see.
# hadolint ignore=DL3013
RUN python -m venv /opt/tuition \
    && pip install --no-deps --index-url "${TORCH_INDEX}" torch torchvision
# Only what is depended on, so that a change of the program leaves these layers alone.
COPY pyproject.toml ./
# hadolint ignore=DL3013
RUN touch README.md LICENSE \
    && pip install '.[vendor,postgres,tracing]' \
    && pip uninstall --yes tuition

FROM packages AS program
COPY README.md LICENSE ./
COPY shared shared
COPY vendor_service vendor_service
RUN pip install --no-deps --root /staged . && rm /staged/opt/tuition/bin/client

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="Tuition vendor" \
      org.opencontainers.image.description="CLIP embeddings by the query, charged exactly once" \
      org.opencontainers.image.licenses="Apache-2.0"
# What torch.compile runs, a quarter of a gigabyte.
ARG COMPILER=
# hadolint ignore=DL3008
RUN test -z "${COMPILER}" || { \
    apt-get update \
    && apt-get install --yes --no-install-recommends "${COMPILER}" \
    && rm -rf /var/lib/apt/lists/*; }
RUN useradd --uid 1000 --home-dir /data --no-create-home tuition \
    && install --directory --owner tuition --mode 700 /data
COPY --from=packages /opt/tuition /opt/tuition
COPY --from=program /staged/opt/tuition /opt/tuition
# Downloaded weights and compiled code stay in the volume too (in compose's /tmp no code may run), and so do the
# books: SQLite's file is made in the working directory.
ENV PATH=/opt/tuition/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/data/cache \
    TORCHINDUCTOR_CACHE_DIR=/data/cache/inductor \
    TRITON_CACHE_DIR=/data/cache/triton \
    VENDOR_HOST=0.0.0.0 \
    VENDOR_PORT=8000
USER 1000
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=10s --start-period=5m --start-interval=1s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=8)"]
ENTRYPOINT ["vendor"]
CMD ["serve"]
