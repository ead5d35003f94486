# Two commands do it all on a fresh machine with Python 3.11 or newer:
#   make serve   install into .venv and serve the sample model
#   make test    install into .venv and run every check and test
# With Java 17 or newer, `make conformance` asks a real TorchServe and zts the same questions (FLAGS: see conformance/).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCHSERVE_VENV := .venv-torchserve
RELEASE_VENV := .venv-release
FLAGS ?=

.PHONY: serve test lint lint-workflows types unit package docs conformance compare profile fuzz clean

# Installed again when a dependency changes; the code itself is linked (editable).
$(VENV)/installed-serve: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed-serve
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch,train,dev,docs]'
	touch $@

serve: $(VENV)/installed-serve
	@echo 'Once "Model server started." is printed, try in another terminal:'
	@echo '  curl -T model_store/digits/samples/7.png http://127.0.0.1:8080/predictions/digits'
	@echo '  $(BIN)/zts predict digits model_store/digits/samples/3.png'
	@echo '  $(BIN)/zts status'
	@$(BIN)/zts start --foreground --disable-token-auth --ncs --model-store model_store --models digits.mar $(FLAGS)

test: $(VENV)/installed-dev lint types
	$(BIN)/python -m pytest tests

lint: $(VENV)/installed-dev lint-workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Schemas come with check-jsonschema, and zizmor looks at the files only: neither needs a network.
lint-workflows: $(VENV)/installed-dev
	$(BIN)/python -m check_jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/python -m check_jsonschema --quiet --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml
	$(BIN)/python -m check_jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/python -m check_jsonschema --quiet --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/python -m check_jsonschema --quiet --builtin-schema vendor.github-issue-forms \
		.github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/zizmor --offline --no-progress --quiet .github

types: $(VENV)/installed-dev
	$(BIN)/mypy

unit: $(VENV)/installed-dev
	$(BIN)/python -m pytest tests/unit -q

# What a release uploads: built from the source archive, compared with the repository, installed in a clean venv, served.
package: $(RELEASE_VENV)/installed
	rm -rf build dist
	$(RELEASE_VENV)/bin/python -m build
	$(RELEASE_VENV)/bin/python -m twine check --strict dist/*
	$(RELEASE_VENV)/bin/python .ci/check_package.py dist

# Without torch, which packing needs not.
$(RELEASE_VENV)/installed: setup.cfg constraints.txt
	test -x $(RELEASE_VENV)/bin/python || $(PYTHON) -m venv $(RELEASE_VENV)
	$(RELEASE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build twine
	touch $@

# The documentation as a web site in site/; a link to a page that is not there is an error.
docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

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
	rm -rf .fuzz-corpus $(VENV) $(TORCHSERVE_VENV) $(RELEASE_VENV) site .venv-mosec .venv-py-spy build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
