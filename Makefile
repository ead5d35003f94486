# Two commands do it all on a fresh machine with Python 3.11 or newer:
#   make serve   install into .venv and serve the sample model
#   make test    install into .venv and run every check and test
# With Java 17 or newer, `make conformance` asks a real TorchServe and zts the same questions (FLAGS: see conformance/).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCHSERVE_VENV := .venv-torchserve
FLAGS ?=

.PHONY: serve test lint types unit conformance compare profile fuzz clean

# Installed again when a dependency changes; the code itself is linked (editable).
$(VENV)/installed-serve: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed-serve
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch,train,dev]'
	touch $@

serve: $(VENV)/installed-serve
	@echo 'Once "Model server started." is printed, try in another terminal:'
	@echo '  curl -T model_store/digits/samples/7.png http://127.0.0.1:8080/predictions/digits'
	@echo '  $(BIN)/zts predict digits model_store/digits/samples/3.png'
	@echo '  $(BIN)/zts status'
	@$(BIN)/zts start --foreground --disable-token-auth --ncs --model-store model_store --models digits.mar $(FLAGS)

test: $(VENV)/installed-dev lint types
	$(BIN)/python -m pytest tests

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

unit: $(VENV)/installed-dev
	$(BIN)/python -m pytest tests/unit -q

# The last release of TorchServe, in a venv of its own: it needs an old setuptools (pkg_resources).
$(TORCHSERVE_VENV)/installed: Makefile constraints.txt
	@command -v java >/dev/null || { echo 'make conformance needs Java 17 or newer: apt install openjdk-17-jre-headless'; exit 1; }
	test -x $(TORCHSERVE_VENV)/bin/python || $(PYTHON) -m venv $(TORCHSERVE_VENV)
	$(TORCHSERVE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(TORCHSERVE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		torchserve==0.12.0 torch-model-archiver==0.12.0 torch pyyaml packaging psutil numpy pillow captum 'setuptools<80'
	touch $@

conformance: $(VENV)/installed-serve $(TORCHSERVE_VENV)/installed
	$(BIN)/python -m conformance.names --torchserve $(TORCHSERVE_VENV)/bin/torchserve
	$(BIN)/python -m conformance.run --torchserve $(TORCHSERVE_VENV)/bin/torchserve $(FLAGS)

# Installs the peers into venvs of their own and prints which goals of speed are reached (FLAGS: benchmarks/compare).
compare: $(VENV)/installed-serve
	$(BIN)/python -m benchmarks.compare $(FLAGS)

# Where a request's processor time goes, function by function (FLAGS: benchmarks/profiles.py).
profile: $(VENV)/installed-serve
	$(BIN)/python -m benchmarks.profiles $(FLAGS)

# Coverage-guided fuzzing of all that reads bytes of strangers (FLAGS: fuzz/run.py), then real instances are attacked:
# from their own descriptions, and with mutated requests.
fuzz: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m fuzz.run $(FLAGS)
	$(BIN)/python -m fuzz.schemas
	$(BIN)/python -m fuzz.rest

clean:
	rm -rf .fuzz-corpus $(VENV) $(TORCHSERVE_VENV) .venv-mosec .venv-py-spy build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
