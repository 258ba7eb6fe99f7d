# The client: `docker compose run client distill --data data ...`.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
RUN python -m venv /opt/tuition
ENV PATH=/opt/tuition/bin:$PATH
WORKDIR /source
# What it depends on comes first, in a layer that a change of code leaves alone.
COPY pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir '.[client]'
COPY shared shared
COPY client client
RUN pip install --no-cache-dir --no-deps --force-reinstall . && rm /opt/tuition/bin/vendor

FROM python:${PYTHON_VERSION}-slim
# Whoever runs it may write its cache: see `user` in docker-compose.yml.
RUN useradd --uid 1000 tuition && install --directory --mode 1777 /cache && install --directory --owner tuition /home/tuition
COPY --from=build /opt/tuition /opt/tuition
ENV PATH=/opt/tuition/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/cache
USER tuition
WORKDIR /home/tuition
VOLUME /cache
ENTRYPOINT ["client"]
CMD ["--help"]
