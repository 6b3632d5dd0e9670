# The image of the bridge: docker build --tag gdn-bridge .
#
# Two targets: `bridge`, the default, and `local`, which also has the local GDN (gdn-bridge local-gdn, demo).
# docs/docker.md explains how to run them. deploy/docker/lock.sh writes the lock files.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
# A fixed time for all build products: the same sources give the same wheel, byte for byte, and .pyc files that
# hold a hash of their source instead of a date.
ENV SOURCE_DATE_EPOCH=1735689600 \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_ONLY_BINARY=:all:
WORKDIR /src
COPY deploy/docker/*.lock /locks/
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --quiet --require-hashes --requirement /locks/requirements-build.lock
# Without pip: the image installs nothing at run time.
RUN python -m venv --without-pip /opt/gdn-bridge \
 && pip --python /opt/gdn-bridge/bin/python install --quiet --require-hashes --requirement /locks/requirements.lock \
 # CPython uses zstandard's C extension; the cffi one is 12 MB.
 && rm /opt/gdn-bridge/lib/python3*/site-packages/zstandard/_cffi*.so
COPY pyproject.toml README.md ./
COPY bridge bridge
# Without build isolation: with it, pip would download a build backend without checking its hash.
RUN /opt/build/bin/pip wheel --quiet --no-build-isolation --no-deps --no-index --wheel-dir /dist . \
 && pip --python /opt/gdn-bridge/bin/python install --quiet --no-deps --no-index /dist/*.whl \
 && pip --python /opt/gdn-bridge/bin/python check

FROM build AS build-local
RUN pip --python /opt/gdn-bridge/bin/python install --quiet --require-hashes --requirement /locks/requirements-local.lock

# Only the wheel: docker build --target wheel --output dist .
FROM scratch AS wheel
COPY --from=build /dist/ /

FROM ${BASE} AS runtime
# For the labels: a build can't determine these values, so `make release` passes them. Otherwise they are empty.
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="gdn-bridge" \
      org.opencontainers.image.description="Feeds Macrometa GDN stream workers from MQTT devices, and never loses what it acknowledged." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# STATE_DIRECTORY is the directory of the outbox, unless a setting names another.
ENV PATH=/opt/gdn-bridge/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 \
    STATE_DIRECTORY=/var/lib/gdn-bridge
RUN install -d -o 10001 -g 10001 -m 0750 /var/lib/gdn-bridge
# A volume by default: acknowledged messages must outlive the container.
VOLUME /var/lib/gdn-bridge
WORKDIR /var/lib/gdn-bridge
STOPSIGNAL SIGTERM
ENTRYPOINT ["gdn-bridge"]
CMD ["run"]

FROM runtime AS local
COPY --from=build-local /opt/gdn-bridge /opt/gdn-bridge
# Import once as root: the base image has no .pyc files of the standard library, and the user below can't write them.
RUN SOURCE_DATE_EPOCH=1735689600 python -c "import bridge.cli, bridge.service.daemon, bridge.local.gdn, bridge.local.devices"
USER 10001:10001

FROM runtime AS bridge
COPY --from=build /opt/gdn-bridge /opt/gdn-bridge
RUN SOURCE_DATE_EPOCH=1735689600 python -c "import bridge.cli, bridge.service.daemon"
# It asks the status server. Other verbs than run have none, so the local image has no health check.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["gdn-bridge", "healthcheck"]
# A number, so that Kubernetes' runAsNonRoot can check it.
USER 10001:10001
