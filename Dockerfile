# An image with loralet and its kernels: docker build --tag loralet . && docker run --rm loralet --help
# Both stages use the same base image, because the kernels need its C library and the environment its Python.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
# Debian removes old versions of packages, so versions are not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN make wheel PYTHON=python3
# torch without CUDA. An empty value installs torch from PyPI.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python3 -m venv /opt/loralet \
    && /opt/loralet/bin/pip install --no-cache-dir --constraint constraints.txt \
       ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} dist/*.whl

FROM ${BASE}
COPY --from=build /opt/loralet /opt/loralet
RUN useradd --create-home --uid 1000 loralet \
    && mkdir /work \
    && chown loralet /work
ENV PATH=/opt/loralet/bin:$PATH
USER 1000
WORKDIR /work
ENTRYPOINT ["loralet"]
CMD ["--help"]
