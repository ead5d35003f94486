# Two commands do it all on a fresh machine with Python 3.11 or newer:
#   make serve   install into .venv and serve the sample model
#   make test    install into .venv and run every check and test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLAGS ?=

.PHONY: serve test lint types unit clean

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

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
