# Everything a person does here: up, test, check, bench, soak, fuzz. A virtual environment is made on the first use.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: up test check bench soak fuzz protos clean

up: $(VENV)/.local
	@$(BIN)/epp up $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(ARGS)

# Load and chaos for minutes or hours: make soak ARGS="--minutes 60 --seed 1".
soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak $(ARGS)

# Where the coverage-guided engine cannot be installed, the runner mutates at random, and says so.
fuzz: $(VENV)/.fuzz
	$(BIN)/python -m tests.fuzz $(ARGS)

# The generated code in epp/protos/ is committed; a test holds it against protos/.
protos: $(VENV)/.dev
	$(BIN)/python -m grpc_tools.protoc -Iepp/protos=protos --python_out=. --pyi_out=. \
		epp/protos/ext_proc.proto epp/protos/health.proto epp/protos/access_log.proto epp/protos/rls.proto

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.local: $(VENV)/bin/python pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[local]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]' || true
	@touch $@

clean:
	rm -rf $(VENV)
