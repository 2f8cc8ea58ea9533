# make install | run | serve | loop | cluster | test | ui | lint | docs | bench | proto | soak | clean.  A second call of any of them starts at once. `clean` keeps var, the state.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TEST_WORKERS ?= 2
SOAK_FILES ?= 10000
PORT ?= 3000

define RIGHT_PYTHON
found=$$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null); case "$$found" in 3.11.*) ;; \
*) echo "expected Python 3.11, found $${found:-none} ($(or $(PYTHON),no python3)); set PYTHON=/path/to/python3.11" >&2; exit 1 ;; esac
endef
# What is named on the command line is checked also if .venv does not need it any more.
NAMED_PYTHON := $(if $(filter command,$(origin PYTHON)),$(RIGHT_PYTHON),:)
SOUND_VENV := $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null

export DAGSTER_HOME ?= $(CURDIR)/var/dagster
export OMP_NUM_THREADS ?= 1

.PHONY: install run serve loop cluster test ui lint docs bench proto soak clean

install: $(STAMP)
	@$(NAMED_PYTHON)

# A .venv of another Python, or one that was interrupted before it had pip, is made anew; pip itself goes on where it stopped.
$(STAMP): pyproject.toml constraints.txt
	@$(NAMED_PYTHON); $(SOUND_VENV) || { $(RIGHT_PYTHON); $(PYTHON) -m venv --clear $(VENV); }
	$(PIP) install --constraint constraints.txt setuptools
	$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[test]'
	touch $(STAMP)

run: $(STAMP)
	$(BIN)/tamiyo run $(ARGS)

serve: $(STAMP)
	@$(BIN)/python -m tamiyo.live.trial $(or $(DIR),var/serve) $(ARGS)

cluster: $(STAMP)
	@$(BIN)/python -m tamiyo.cluster $(or $(DIR),var/cluster) $(ARGS)

loop: $(STAMP)
	@$(BIN)/python -m tamiyo.live.loop $(or $(DIR),var/loop) $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -m 'not soak' -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

ui: $(STAMP)
	@$(BIN)/python -c 'import socket; socket.create_server(("127.0.0.1", $(PORT)))' 2>/dev/null || \
	{ echo "port $(PORT) is in use: stop what listens on it, or choose another with PORT=3001" >&2; exit 1; }
	$(BIN)/python -m tamiyo_assets.instance "$(DAGSTER_HOME)"
	$(BIN)/dagster instance migrate
	$(BIN)/dagster dev --workspace workspace.yaml --port $(PORT) $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python -m tests.docs.wording

docs: $(STAMP)
	$(BIN)/zensical build --strict

bench: $(STAMP)
	$(BIN)/python -m benchmarks.table $(ARGS)

proto: $(STAMP)
	$(BIN)/python -m grpc_tools.protoc --proto_path=. --python_out=. --pyi_out=. schemas/leyline/leyline.proto

soak: $(STAMP)
	SOAK_FILES=$(SOAK_FILES) $(BIN)/python -m pytest -m soak $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
