# One image for every process of ours; docker-compose.yml says which process runs in it.
#
#   docker build .                           for processors
#   docker build --build-arg EXTRA=gpu .     for NVIDIA GPUs (x86-64)
ARG PYTHON=3.12

# ---- dependencies: a virtual environment, rebuilt only when pyproject.toml changes
FROM python:${PYTHON}-slim AS dependencies
# Which extra of pyproject.toml: the two bring a faiss each, and only one can be installed.
ARG EXTRA=cpu
# A further index for torch wheels; empty takes pip's own, whose torch carries the CUDA libraries.
ARG TORCH_INDEX=

RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /srv/clara
COPY pyproject.toml ./
# Editable: the packages stay where migrations, samples and settings files are. Empty ones are
# enough to install from; the code takes their place below.
RUN case "$EXTRA" in cpu|gpu) ;; *) echo "EXTRA is cpu or gpu, not '$EXTRA'" >&2; exit 1 ;; esac \
    && touch README.md \
    && for package in api clara migrations workers; do \
           mkdir "$package" && touch "$package/__init__.py" || exit 1; \
       done
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --editable ".[$EXTRA]"

# ---- the image
FROM python:${PYTHON}-slim AS clara
# Its home is the volume, so that caches of libraries are there too and survive an update.
RUN groupadd --gid 10001 clara \
    && useradd --uid 10001 --gid clara --no-create-home --home-dir /var/lib/clara \
               --shell /usr/sbin/nologin clara \
    && install --directory --owner clara --group clara /var/lib/clara
COPY --from=dependencies /opt/venv /opt/venv
WORKDIR /srv/clara
COPY . .

ENV PATH=/opt/venv/bin:$PATH \
    CLARA_HOME=/var/lib/clara \
    HF_HOME=/var/lib/clara/huggingface \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
VOLUME /var/lib/clara
USER 10001:10001
CMD ["clara", "--help"]
