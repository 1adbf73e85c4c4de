# The server in an image, for NVIDIA GPUs and CPUs; what follows the image's name are flags of the server.
#
#   docker build -t millstream .
#   docker run --rm -p 8080:8080 -v millstream:/data millstream
#   docker run --rm -p 8080:8080 -v millstream:/data --gpus all --env-file .env millstream --model-id Qwen/Qwen3-0.6B
#
# For CPUs alone, 6 GB smaller; the index is the one of torch's CPU builds, which pytorch.org names:
#
#   docker build -t millstream:cpu --build-arg ACCELERATOR=cpu --build-arg PIP_EXTRA_INDEX_URL=... .

FROM python:3.11.13-slim-bookworm AS build
# cuda or cpu: the build of torch that is wanted. The image is not made with another one.
ARG ACCELERATOR=cuda
# An index beside pip's own. Without that of torch's CPU builds, torch brings CUDA along.
ARG PIP_EXTRA_INDEX_URL=
COPY constraints.txt /build/
RUN python -m venv /opt/millstream \
 && /opt/millstream/bin/pip install --no-cache-dir --constraint /build/constraints.txt torch \
 && /opt/millstream/bin/python -c "import sys, torch; found = 'cuda' if torch.version.cuda else 'cpu'; sys.exit(found != '${ACCELERATOR}' and f'torch is built for {found}, not for ${ACCELERATOR}: see PIP_EXTRA_INDEX_URL')"
COPY pyproject.toml README.md LICENSE /build/
COPY server /build/server
RUN /opt/millstream/bin/pip install --no-cache-dir --constraint /build/constraints.txt '/build[quantize,postgres,otel]'

FROM python:3.11.13-slim-bookworm
# The compiler makes the kernels for the machine that the image runs on. tini is the first process: the kernel
# keeps signals from a first process that does not yet ask for them, and then `docker stop` would wait in vain.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --user-group --home-dir /data --create-home millstream
COPY --from=build /opt/millstream /opt/millstream
# Of the operator's own variables the command line and --env-file win. NVIDIA's are read where there is a GPU.
ENV PATH=/opt/millstream/bin:$PATH HOME=/data MILLSTREAM_HOST=0.0.0.0 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /data
# Models, compiled kernels, and what the server keeps. Beside it only /tmp is written to.
VOLUME /data
EXPOSE 8080
HEALTHCHECK --start-period=10m --interval=30s --timeout=10s \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('MILLSTREAM_PORT', '8080') + '/health', timeout=9)"]
ENTRYPOINT ["tini", "--", "millstream", "serve"]
