# make install | run | test | ui | lint | proto | soak | clean.  A second call of any of them starts at once. `clean` keeps var, the state.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TEST_WORKERS ?= 2
SOAK_FILES ?= 10000

export DAGSTER_HOME ?= $(CURDIR)/var/dagster
export OMP_NUM_THREADS ?= 1

.PHONY: install run test ui lint proto soak clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt setuptools
	$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[test]'
	touch $(STAMP)

run: $(STAMP)
	$(BIN)/tamiyo run $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -m 'not soak' -n $(TEST_WORKERS) --dist loadfile $(ARGS)

ui: $(STAMP)
	$(BIN)/python -m tamiyo_assets.instance $(DAGSTER_HOME)
	$(BIN)/dagster instance migrate
	$(BIN)/dagster dev --workspace workspace.yaml $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

proto:
	protoc --proto_path=. --python_out=. --pyi_out=. schemas/leyline/leyline.proto

soak: $(STAMP)
	SOAK_FILES=$(SOAK_FILES) $(BIN)/python -m pytest -m soak $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
