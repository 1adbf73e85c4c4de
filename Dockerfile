# The server on a CPU, with its demo model; --model-id, or MILLSTREAM_MODEL_ID, names another.
#
#   docker build -t millstream --build-arg PIP_EXTRA_INDEX_URL=(where torch's CPU builds are) .
#   docker run --rm -p 8080:8080 -v millstream:/data millstream
#   docker run --rm -p 8080:8080 -v millstream:/data --env-file .env millstream --model-id Qwen/Qwen3-0.6B

FROM python:3.11.13-slim-bookworm AS build
# An index beside pip's own. Without that of torch's CPU builds, torch brings CUDA along: 6 GB.
ARG PIP_EXTRA_INDEX_URL=
COPY constraints.txt /build/
RUN python -m venv /opt/millstream \
 && /opt/millstream/bin/pip install --no-cache-dir --constraint /build/constraints.txt torch
COPY pyproject.toml README.md LICENSE /build/
COPY server /build/server
RUN /opt/millstream/bin/pip install --no-cache-dir --constraint /build/constraints.txt '/build[quantize,postgres]'

FROM python:3.11.13-slim-bookworm
# The compiler makes the kernels for the machine that the image runs on.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --home-dir /data --create-home millstream
COPY --from=build /opt/millstream /opt/millstream
# Of the operator's own variables the command line and --env-file win.
ENV PATH=/opt/millstream/bin:$PATH HOME=/data MILLSTREAM_HOST=0.0.0.0
USER millstream
WORKDIR /data
# Models, compiled kernels, and what the server keeps.
VOLUME /data
EXPOSE 8080
HEALTHCHECK --start-period=10m --interval=30s --timeout=10s \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('MILLSTREAM_PORT', '8080') + '/health', timeout=9)"]
ENTRYPOINT ["millstream", "serve"]
