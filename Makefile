# Each target sets up what it needs in its own virtual environment and changes nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SEED ?= 1
MINUTES ?= 5
# Test processes. Most tests spend their time waiting: three processes keep two cores busy.
WORKERS ?= 3

.PHONY: demo quick coverage test check brokers faults power mutants soak bench docs deb release sbom clean

demo: $(VENV)/.local
	$(BIN)/gdn-bridge demo

# A quick check of a change, within half a minute on two idle cores once the caches are warm: no peers, no processes, few examples of each property.
quick: check
	$(BIN)/pytest -q -n 2 --dist worksteal -m 'not long' --hypothesis-profile=quick tests/unit tests/path $(PYTEST_ARGS)

# Branch coverage by the tests that need neither process nor peer; fails below the floor in pyproject.toml.
IN_PROCESS := tests/unit tests/path $(addprefix tests/integration/test_,changed_subscriptions.py dead_letters.py \
  deduplication.py links.py outbox.py status_server.py)
coverage: $(VENV)/.dev
	$(BIN)/pytest -q -n 2 --dist worksteal -m 'not long' --hypothesis-profile=quick --cov --cov-report=term $(IN_PROCESS) $(PYTEST_ARGS)

test: check $(VENV)/.dev
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m 'not brokers' $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What real brokers do, as docs/brokers.md says: all that a registry has. CI runs three of them.
brokers: $(VENV)/.dev
	$(BIN)/pytest tests/brokers $(PYTEST_ARGS)

# Injects faults for MINUTES minutes, to find lost messages; the same SEED gives the same faults.
faults: $(VENV)/.dev
	$(BIN)/python -m tests.faults.run --seed $(SEED) --minutes $(MINUTES)

# Rebuilds what power losses at POINTS moments could leave on disk; from one recording the same SEED rebuilds the same.
power: POINTS = 1000
power: $(VENV)/.dev
	$(BIN)/python -m tests.faults.power --seed $(SEED) --points $(POINTS)

# Changes the data path in one place at a time; a fast test must fail. Continues where the last run ended.
mutants: $(VENV)/.mutants
	$(BIN)/python -m tests.mutants.run $(MUTANTS_ARGS)

# A bridge with a healthy far end and a Prometheus, for MINUTES minutes: no alert, few requests, flat memory.
soak: MINUTES = 20
soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak.run --minutes $(MINUTES)

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench.mapping
	$(BIN)/python -m tests.bench.throughput

# The documentation as a site, in build/site: open build/site/index.html. Broken links fail the build.
docs: $(VENV)/.dev
	$(BIN)/mkdocs build --quiet --clean

# A Debian package for the release of this machine, in dist/.
deb: $(VENV)/.local
	deploy/debian/build.sh $(BIN)/pip dist

# Everything that a release consists of, in dist/; reports what can't be built on this machine.
release: $(VENV)/.dev
	deploy/release/build.sh $(BIN) dist

# The SBOM, in dist/ (CycloneDX), and docs/licences.md.
sbom: $(VENV)/.dev
	deploy/release/sbom.sh $(BIN) dist

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage build dist

$(VENV)/.local: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[local,formats]'
	touch $@

$(VENV)/.dev: $(VENV)/.local
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

$(VENV)/.mutants: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --group mutants
	touch $@
