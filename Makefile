# `make quick` tries the pipeline, `make repro` runs it whole, `make test` the tests. All set up .venv
# first.
# `make TORCH=cpu repro` takes PyTorch's CPU build from its own index instead of the registry's
# build, which on Linux brings several gigabytes of CUDA libraries.
# A folder of wheels named by PIP_FIND_LINKS is used as well.
SHELL := /bin/bash
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:$(PATH)
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
UV_VERSION := 0.13.9
LINKS := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS))
INDEX := $(if $(filter cpu,$(TORCH)),--extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
# overrides.txt leaves out delphi's vLLM and bitsandbytes, which need a GPU; `make GPU=1` has them.
OVERRIDE := $(if $(GPU),,--override overrides.txt)
comma := ,
# Without a GPU the environment includes a small language model that runs in process, offline.
EXTRAS := delphi$(comma)$(if $(GPU),gpu,local-llm)$(comma)docs$(comma)dev

# Two workers run the tests, each file in one of them: tests of a file share costly fixtures.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

READY := .venv/.ready$(if $(GPU),-gpu)

.PHONY: help env quick repro grid figures test nightly torture test-all check docs clean lock reference reference-planted

help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env: $(READY) ## Create .venv with the pinned requirements

$(READY): requirements.txt pyproject.toml overrides.txt
	@command -v $(UV) >/dev/null || { python3 -m venv .uv && .uv/bin/pip install -q uv==$(UV_VERSION); }
	@test -x $(BIN)/python || $(UV) venv -q --python '>=3.11.5' .venv  # as the site of the docs wants
	$(UV) pip install -q --python $(BIN)/python --compile-bytecode $(OVERRIDE) $(LINKS) $(INDEX) -c requirements.txt -e '.[$(EXTRAS)]'
	@touch $@

quick: env ## Try it: the pipeline at its smallest, in a place of its own, and checks of what came out
	$(BIN)/clearnets exp smoke
	$(BIN)/clearnets claims --experiment smoke

repro: env ## Run the whole pipeline: text to paper, and what that says of the committed results
	$(BIN)/clearnets repro

# The first makes what others take from DVC's cache: tokens and dense models.
GRID := k8 k4 k16 k32 selections feedforwards tokens-4m width-128 tokens-10m
grid: env ## Run the grid, hours; killed, it goes on where it was
	for cell in $(GRID); do $(BIN)/clearnets exp grid-$$cell || exit; done
	$(BIN)/python paper/scripts/grid.py paper/results

figures: env ## Rebuild every figure from the tables in git, without training
	$(BIN)/clearnets figures

test: env ## Run the tests
	$(BIN)/python -m pytest $(PARALLEL)

nightly: env ## Run the tests that take minutes: kills, simulations of coverage, checks of upstream
	$(BIN)/python -m pytest $(PARALLEL) -m nightly

torture: env ## Kill the pipeline, fill its disk, feed it bad inputs: half an hour (docs/reliability.md)
	$(BIN)/python tests/torture/torture.py $(TORTURE)

test-all: test nightly ## Run both

REFERENCE := .venv-reference/bin/python
reference: env ## Compare coders with the library dictionary-learning, in an environment of its own
	@test -x $(REFERENCE) || $(UV) venv -q --python '>=3.11' .venv-reference
	$(UV) pip install -q --python $(REFERENCE) $(LINKS) $(INDEX) --no-deps -r benchmarks/reference-requirements.txt
	$(BIN)/clearnets data && $(BIN)/clearnets train --mlp dense
	PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/reference_coders.py ours benchmarks/out/reference \
		--model $$(ls -d artifacts/train/dense/seed-0/checkpoints/* | tail -1)
	$(REFERENCE) benchmarks/reference_coders.py theirs benchmarks/out/reference
	$(BIN)/python benchmarks/reference_coders.py table benchmarks/out/reference

# The latest sae-lens when it was written; it brings libraries that nothing else here needs.
SAE_LENS := .venv-sae-lens/bin/python
reference-planted: env ## Compare recovery of a known dictionary with sae-lens, in an environment of its own
	@test -x $(SAE_LENS) || $(UV) venv -q --python '>=3.11' .venv-sae-lens
	$(UV) pip install -q --python $(SAE_LENS) $(LINKS) $(INDEX) sae-lens==6.54.12
	PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/reference_planted.py ours benchmarks/out/planted
	$(SAE_LENS) benchmarks/reference_planted.py theirs benchmarks/out/planted
	$(BIN)/python benchmarks/reference_planted.py table benchmarks/out/planted

check: env ## Lint, format check, types; no number in the paper by hand
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python paper/lint.py
	$(BIN)/pyright

docs: env ## Build the pages and the API reference as a site that opens offline: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q
	@echo "made: site/index.html"

lock: ## Pin all requirements anew
	$(UV) pip compile -q pyproject.toml --extra delphi --extra local-llm --extra docs --extra dev --override overrides.txt $(LINKS) --no-annotate --no-header -o requirements.txt
	sed -i 's/+cpu$$//' requirements.txt

clean: ## Remove work folders and tool caches; artifacts and the environment stay
	rm -rf .clearnets/work .clearnets/logs .pytest_cache .ruff_cache .hypothesis
