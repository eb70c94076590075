# One image for every service and the operator. Any base with Python 3.11 or newer, pip and venv will do:
#     docker build --build-arg BASE=python:3.13-slim -t postrail:0.1.0 .
# What is installed is locked by hash; what builds it stays in the first stage.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements-build.lock requirements-operator.lock ./
# What comes as source only is built with the locked tools, not with what its build asks for.
RUN python3 -m venv /build \
 && /build/bin/pip install --quiet --require-hashes --only-binary :all: -r requirements-build.lock \
 && /build/bin/pip wheel --quiet --require-hashes --no-build-isolation --wheel-dir /wheels -r requirements-operator.lock
COPY pyproject.toml LICENSE ./
COPY services services
COPY operator operator
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python3 -m venv /opt/postrail \
 && /opt/postrail/bin/pip install --quiet --no-index --no-deps /wheels/*.whl \
 && /opt/postrail/bin/pip check \
 && /opt/postrail/bin/pip uninstall --quiet --yes pip setuptools

FROM ${BASE}
LABEL org.opencontainers.image.title="Postrail" \
      org.opencontainers.image.description="A mail delivery system: every service, and its Kubernetes operator" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/postrail /opt/postrail
ENV PATH=/opt/postrail/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Owned by root and never written to: it runs with a read-only root, /tmp and the data directory aside.
USER 10001:10001
EXPOSE 2525 2587 2465 9464
ENTRYPOINT ["postrail"]
CMD ["--help"]
