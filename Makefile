# neuromodd: `make run` to try it, `make test` to check it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
APT_INSTALL := $(AS_ROOT) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# A trial leaves nothing outside the checkout.
NEUROMODD_CHECKPOINT__DIRECTORY ?= $(CURDIR)/.state
# Whoever has a Home Assistant on the broker sees the trial there.
NEUROMODD_HOMEASSISTANT__ENABLED ?= true
# And whoever has a browser, the page.
NEUROMODD_WEB__ENABLED ?= true

.PHONY: run test lint format types layers check long benchmark clean

run: $(VENV)/.ready-run
	@NEUROMODD_CHECKPOINT__DIRECTORY='$(NEUROMODD_CHECKPOINT__DIRECTORY)' \
	  NEUROMODD_HOMEASSISTANT__ENABLED='$(NEUROMODD_HOMEASSISTANT__ENABLED)' \
	  NEUROMODD_WEB__ENABLED='$(NEUROMODD_WEB__ENABLED)' $(BIN)/neuromodd run

# Everything that CI checks.
test: $(VENV)/.ready-test tools lint types layers check

lint: $(VENV)/.ready-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/hadolint Dockerfile

format: $(VENV)/.ready-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.ready-test
	$(BIN)/mypy

layers: $(VENV)/.ready-test
	$(BIN)/lint-imports

# One worker more than the processors that we count on: many tests wait. Whole files go to a worker, so that what a file
# makes for its tests is made once. Workers that do not collect the same tests refuse to run, hence the fixed order of sets.
WORKERS ?= 3
check: $(VENV)/.ready-test tools
	PYTHONHASHSEED=0 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m 'not long and not soak and not alone'
	$(BIN)/python -m pytest -m alone

# What takes minutes: the distal reward problem in full.
long: $(VENV)/.ready-test
	$(BIN)/python -m pytest -m long

# What takes half an hour: kills by the hundred, every bit of a checkpoint; then a day of ticks and ten minutes at
# 20 Hz, with everything failing in turn.
.PHONY: soak
soak: $(VENV)/.ready-test tools
	$(BIN)/python -m pytest -m soak
	$(BIN)/python benchmarks/soak.py

# Cost and speed on this machine, for the tables in the README.
benchmark: $(VENV)/.ready-test tools
	$(BIN)/python benchmarks/resources.py
	$(BIN)/python benchmarks/delivery.py
	$(BIN)/python benchmarks/sensors.py
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/surprise_cost.py

$(VENV)/.ready-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "neuromodd needs Python 3.11 or later; set PYTHON to one (make PYTHON=python3.12 ...)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { $(AS_ROOT) apt-get -qq update && $(APT_INSTALL) python3-venv; }
	$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.ready-run: pyproject.toml | $(VENV)/.ready-venv
	@echo 'Installing neuromodd with all extras into $(VENV) ...'
	@$(PIP_INSTALL) --editable '.[all]'
	@touch $@

$(VENV)/.ready-test: pyproject.toml | $(VENV)/.ready-venv
	@echo 'Installing neuromodd with all extras and the test tools into $(VENV) ...'
	@$(PIP_INSTALL) --editable '.[all]' --group test --group lint
	@touch $@ $(VENV)/.ready-run

# A broker, a C compiler for the library that stands in for NVML, what judges systemd's units and Prometheus's metrics,
# and a browser. Debian starts a server as soon as it is installed; the tests start their own, on free ports.
.PHONY: tools
tools:
	@PATH="$$PATH:/usr/sbin"; command -v mosquitto >/dev/null && command -v mosquitto_sub >/dev/null \
	  && command -v systemd-analyze >/dev/null && command -v promtool >/dev/null && command -v chromium >/dev/null \
	  && printf '#include <stdio.h>\n' | gcc -x c -E - >/dev/null 2>&1 || { \
	  $(AS_ROOT) apt-get -qq update \
	  && $(APT_INSTALL) mosquitto mosquitto-clients gcc libc6-dev systemd prometheus chromium && \
	  if [ -d /run/systemd/system ]; then $(AS_ROOT) systemctl disable --now mosquitto prometheus; fi; }

# The discovery documents against Home Assistant itself, in an environment of its own.
.PHONY: ha-test
PYTHON_HA ?= python3.12
HA_VENV := $(VENV)/ha
# This version wants that paho; aiomqtt wants a newer one, and nothing that is checked here imports it.
HA_PACKAGES := 'homeassistant==2024.12.5' 'paho-mqtt==1.6.1' 'pytest>=8.2'
HA_INSTALL = $(HA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check
ha-test: $(HA_VENV)/.ready tools
	$(HA_VENV)/bin/python -m pytest -c tests/homeassistant/pytest.ini tests/homeassistant

$(HA_VENV)/.ready: pyproject.toml
	@$(PYTHON_HA) -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null \
	  || { echo "Home Assistant needs Python 3.12 or later; set PYTHON_HA to one" >&2; exit 1; }
	$(PYTHON_HA) -m venv $(HA_VENV)
	@echo 'Installing Home Assistant and neuromodd into $(HA_VENV) ...'
	@$(HA_INSTALL) $(HA_PACKAGES) numpy nvidia-ml-py psutil 'pydantic>=2.12,<3' pydantic-settings structlog
	@$(HA_INSTALL) --no-deps --editable .
	@touch $@

# The unit under a real systemd, booted in namespaces of its own, where no disk of the host can be written.
.PHONY: service-test
service-test: $(VENV)/.ready-test tools
	$(AS_ROOT) $(BIN)/python -m pytest -c tests/service/pytest.ini tests/service

# The Dockerfile, built with buildah on a base made with debootstrap, and run. Takes minutes; leaves nothing.
.PHONY: image-test image-tools
image-test: $(VENV)/.ready-test tools image-tools
	$(AS_ROOT) env PYTHONDONTWRITEBYTECODE=1 \
	  $(BIN)/python -m pytest -c tests/image/pytest.ini --confcutdir=tests tests/image

image-tools:
	@PATH="$$PATH:/usr/sbin"; command -v buildah >/dev/null && command -v debootstrap >/dev/null \
	  || { $(AS_ROOT) apt-get -qq update && $(APT_INSTALL) buildah debootstrap; }

clean:
	rm -rf $(VENV) .state build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
