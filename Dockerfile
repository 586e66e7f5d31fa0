# An environment with everything that the pipeline and its tests need, for CPUs. In a clone:
#   docker build -t clearnets .
#   docker run --rm -it -v "$PWD/out:/out" clearnets
# Then, inside: `make repro` or `make test`; `cp -r paper artifacts /out` takes the results along.
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install -y --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /clearnets
# The environment first: it changes less often than the source.
COPY Makefile pyproject.toml requirements.txt overrides.txt README.md LICENSE ./
COPY clearnets/__init__.py clearnets/__init__.py
RUN make TORCH=cpu env
# With .git: DVC and `clearnets trace` read the history. Commits need an author.
COPY . .
RUN git config --global user.name clearnets && git config --global user.email clearnets@localhost
ENV PATH="/clearnets/.venv/bin:$PATH"
CMD ["bash"]
