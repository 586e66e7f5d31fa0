# An environment with everything that the pipeline and its tests need, for CPUs.
#   docker build -t clearnets .
#   docker run --rm -it -v "$PWD/out:/out" clearnets   # then, inside: make repro, or make test
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install -y --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /clearnets
# The environment first: it changes less often than the source.
COPY Makefile pyproject.toml requirements.txt overrides.txt README.md LICENSE ./
COPY clearnets/__init__.py clearnets/__init__.py
RUN make TORCH=cpu env
COPY . .
ENV PATH="/clearnets/.venv/bin:$PATH"
CMD ["bash"]
