# The client: `docker compose run --rm client distill ...`.
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
    && pip install '.[heic,onnx,tracing]' \
    && pip uninstall --yes tuition

FROM packages AS program
COPY README.md LICENSE ./
COPY shared shared
COPY client client
RUN pip install --no-deps --root /staged . && rm /staged/opt/tuition/bin/vendor

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="Tuition client" \
      org.opencontainers.image.description="Buys CLIP embeddings once and distils a small student from them" \
      org.opencontainers.image.licenses="Apache-2.0"
# Whoever runs it may write its cache: see `user` in docker-compose.yml.
RUN useradd --uid 1000 --create-home tuition \
    && install --directory --mode 1777 /cache
COPY --from=packages /opt/tuition /opt/tuition
COPY --from=program /staged/opt/tuition /opt/tuition
ENV PATH=/opt/tuition/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/cache \
    XDG_CONFIG_HOME=/cache/configuration
USER 1000
WORKDIR /home/tuition
VOLUME /cache
ENTRYPOINT ["client"]
CMD ["--help"]
