# Each target sets up what it needs in a virtual environment of its own; nothing else is touched.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SEED ?= 1
MINUTES ?= 5
# Test processes. Many tests wait most of their time, so that three keep two cores busy.
WORKERS ?= 3

.PHONY: demo quick coverage test check faults power mutants soak bench docs deb release sbom clean

demo: $(VENV)/.local
	$(BIN)/gdn-bridge demo

# What a change is tried with, within half a minute: no peers, no processes, few examples of each property.
quick: check
	$(BIN)/pytest -q -n 2 -m 'not long' --hypothesis-profile=quick tests/unit tests/path $(PYTEST_ARGS)

# Branches that the tests reach which need no process and no peer; fails below the floor in pyproject.toml.
IN_PROCESS := tests/unit tests/path $(addprefix tests/integration/test_,changed_subscriptions.py dead_letters.py \
  deduplication.py links.py outbox.py status_server.py)
coverage: $(VENV)/.dev
	$(BIN)/pytest -q -n 2 -m 'not long' --hypothesis-profile=quick --cov --cov-report=term $(IN_PROCESS) $(PYTEST_ARGS)

test: check $(VENV)/.dev
	$(BIN)/pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tries to lose messages for MINUTES minutes; the same SEED makes the same faults.
faults: $(VENV)/.dev
	$(BIN)/python -m tests.faults.run --seed $(SEED) --minutes $(MINUTES)

# Rebuilds what power losses at POINTS moments could leave on disk; the same SEED rebuilds the same of a recording.
power: POINTS = 1000
power: $(VENV)/.dev
	$(BIN)/python -m tests.faults.power --seed $(SEED) --points $(POINTS)

# Changes one place of the data path after the other; the fast tests must notice. Goes on where the last run ended.
mutants: $(VENV)/.mutants
	$(BIN)/python -m tests.mutants.run $(MUTANTS_ARGS)

# A bridge whose far end is well, for MINUTES minutes beside a Prometheus: no alarm, few requests, memory stays flat.
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

# Everything that a release consists of, in dist/: what can't be built on this machine is named.
release: $(VENV)/.dev
	deploy/release/build.sh $(BIN) dist

# The list of what the bridge is made of, in dist/ (CycloneDX), and docs/licences.md.
sbom: $(VENV)/.dev
	deploy/release/sbom.sh $(BIN) dist

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

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
