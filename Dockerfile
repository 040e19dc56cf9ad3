# neuromodd in a container. Builds with docker, podman and buildah; nothing here is of one architecture.
#
#   docker build -t neuromodd .
#   docker run --read-only --tmpfs /run/neuromodd -v neuromodd:/var/lib/neuromodd \
#     -e NEUROMODD_MQTT__HOST=broker.lan neuromodd
#
# The README tells how it measures the host, and config/compose.yaml does it, with a broker beside.

# A slim image of Debian with Python 3.11 or later; the final image is it and the packages.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
# Extras of the package, with commas between: broker, fast, web, zstd.
ARG EXTRAS="web"
SHELL ["/bin/sh", "-euc"]
WORKDIR /build
COPY pyproject.toml README.md LICENSE-MIT LICENSE-APACHE ./
COPY neuromodd neuromodd
COPY systemd systemd
COPY config/neuromodd.toml config/
RUN python3 -m venv tools \
 && tools/bin/pip wheel --no-cache-dir --no-deps --wheel-dir dist . \
 && python3 -m venv --without-pip /opt/neuromodd \
 && wheel="$(echo dist/*.whl)" \
 && tools/bin/pip --python /opt/neuromodd/bin/python install --no-cache-dir --no-compile "${wheel}${EXTRAS:+[${EXTRAS}]}"
# What only those need who test numpy, or build against it or its types.
RUN rm -rf /opt/neuromodd/lib/python3.*/site-packages/numpy/_core/include \
 && find /opt/neuromodd/lib/python3.*/site-packages/numpy \
      \( -type d -name tests -o -type f \( -name '*.pyi' -o -name '*.pxd' -o -name '*.a' \) \) -prune -exec rm -rf {} +

FROM ${BASE}
SHELL ["/bin/sh", "-euc"]
ENV PATH=/opt/neuromodd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STATE_DIRECTORY=/var/lib/neuromodd \
    RUNTIME_DIRECTORY=/run/neuromodd \
    NVIDIA_DRIVER_CAPABILITIES=utility
COPY --from=build /opt/neuromodd /opt/neuromodd
COPY config/container.toml /etc/neuromodd/neuromodd.toml
# The user's number stays: what is in a volume is its own. Nothing is installed in a container that runs, so pip goes.
# And what the daemon imports is compiled here, as it can't be kept later, where the root is read-only: bases leave
# even the standard library without.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/neuromodd \
      --shell /usr/sbin/nologin neuromodd \
 && install -d -o neuromodd -g neuromodd -m 0700 /var/lib/neuromodd /run/neuromodd \
 && rm -rf /usr/local/lib/python3.*/site-packages/pip /usr/local/lib/python3.*/site-packages/pip-* /usr/local/bin/pip* \
 && neuromodd sample -n 1 > /dev/null \
 && python -c 'import neuromodd.daemon, neuromodd.health' \
 && if python -c 'import uvicorn' 2> /dev/null; then python -c 'import neuromodd.dashboard.server'; fi
ENV PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/neuromodd
VOLUME /var/lib/neuromodd
# The page and the metrics, where web.enabled and web.host ask for them.
EXPOSE 9464
# Five seconds: the command itself gives up after three.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 CMD ["neuromodd", "health"]
ENTRYPOINT ["neuromodd"]
CMD ["run"]

ARG VERSION=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="neuromodd" \
      org.opencontainers.image.description="A small nervous system for a Linux host: telemetry in, neuromodulators and a spiking network in the middle, MQTT out." \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
