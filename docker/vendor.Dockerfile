# The vendor: `docker compose up` serves the bundled model, its books in the volume at /data.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
RUN python -m venv /opt/tuition
ENV PATH=/opt/tuition/bin:$PATH
WORKDIR /source
# What it depends on comes first, in a layer that a change of code leaves alone.
COPY pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir '.[vendor,postgres]'
COPY shared shared
COPY vendor_service vendor_service
RUN pip install --no-cache-dir --no-deps --force-reinstall . && rm /opt/tuition/bin/client

FROM python:${PYTHON_VERSION}-slim
RUN useradd --uid 1000 tuition && install --directory --owner tuition /data
COPY --from=build /opt/tuition /opt/tuition
# Downloaded model weights stay in the volume too.
ENV PATH=/opt/tuition/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/data/cache \
    VENDOR_HOST=0.0.0.0 \
    VENDOR_PORT=8000 \
    VENDOR_DATABASE_URL=sqlite:////data/vendor.db
USER tuition
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=10s --start-period=5m --start-interval=1s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=8)"]
ENTRYPOINT ["vendor"]
CMD ["serve"]
