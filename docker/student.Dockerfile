# A deployed student: `docker compose up student`. It has ONNX Runtime, and no PyTorch.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS packages
ENV PATH=/opt/tuition/bin:$PATH \
    PIP_CONSTRAINT=/source/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /source
COPY docker/constraints.txt ./
# Only what is depended on, so that a change of the program leaves these layers alone.
COPY pyproject.toml ./
# The constraints pin everything, which hadolint does not see.
# hadolint ignore=DL3013
RUN python -m venv /opt/tuition \
    && pip install --upgrade pip \
    && pip install --group student

FROM packages AS bare
ARG PYTHON_VERSION
# What installs, tests, converts and trains is of no use to who serves.
WORKDIR /opt/tuition/lib/python${PYTHON_VERSION}/site-packages
RUN rm -r pip setuptools pkg_resources \
        onnxruntime/datasets onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
    && find . -type d -name tests -prune -exec rm -r {} +
# These two come with 15 MB of symbols that only debuggers read.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && strip --strip-unneeded uvloop/loop.*.so cryptography/hazmat/bindings/_rust.abi3.so

FROM packages AS program
COPY README.md LICENSE ./
COPY shared shared
COPY client client
# The bundled icons are for training.
RUN rm -r client/data/bundled \
    && pip install --no-deps --root /staged . \
    && rm /staged/opt/tuition/bin/vendor

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="Tuition student" \
      org.opencontainers.image.description="Answers what is on images, by a student that was distilled" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 1000 --create-home tuition
COPY --from=bare /opt/tuition /opt/tuition
COPY --from=program /staged/opt/tuition /opt/tuition
ENV PATH=/opt/tuition/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 1000
WORKDIR /home/tuition
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=10s --start-period=1m --start-interval=1s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=8)"]
ENTRYPOINT ["client", "serve", "--host", "0.0.0.0"]
CMD ["runs"]
