# docker compose up --build        (see docker-compose.yml)
#
# PyTorch comes from its public CPU index, so that no CUDA libraries are fetched: this version
# computes on the CPU only.
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /app

# The dependencies change less often than the code: a layer of their own.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir api ingest kb llm webui \
    && pip install --extra-index-url "$TORCH_INDEX" -c constraints.txt . \
    && pip uninstall --yes local-kb

COPY api api
COPY ingest ingest
COPY kb kb
COPY llm llm
COPY webui webui
RUN pip install --no-deps . && useradd --create-home --uid 10001 kb \
    && install --directory --owner kb --group kb /data

# Inside the container the server listens on every address, which it does only with KB_API_KEY
# set; docker-compose.yml publishes the port on 127.0.0.1.
ENV KB_HOME=/data \
    KB_HOST=0.0.0.0 \
    KB_PORT=8000
USER kb
VOLUME /data
EXPOSE 8000

HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]

CMD ["kb", "serve"]
