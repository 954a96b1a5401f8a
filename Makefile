# make train   create .venv, install, train FrankaCabinet with HEPO    (overrides: make train ARGS="algo=ppo_h seed=1")
# make test    create .venv, install, run every check and the default tests
# make help    the rest
#
# Needs python3 (3.11 or newer) and make; never root.

VENV   := .venv
PY     := $(VENV)/bin/python
ARGS   ?=
# The first of these that is new enough makes the environment; PYTHON=/path/to/python chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo $$p; break; }; done)
# CUDA machines also get MuJoCo Warp; override with EXTRAS=report,video.
EXTRAS ?= report,video$(shell command -v nvidia-smi >/dev/null 2>&1 && echo ,cuda)
PIP     = $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
SPEC   := pyproject.toml constraints.txt
# Two processes are enough for the default suite and leave room for the engines' own threads.
JOBS   ?= 2
# Isaac Gym lives in Python 3.8: an environment of its own, with pins of its own.
VENV38 := .venv38
PY38   ?= python3.8
TESTS38 := tests/isaacgym $(addprefix tests/sim/,$(addsuffix .py,test_isaacgym test_isaacgym_asset \
	test_isaacgym_settings test_fake_isaacgym test_fake_isaacgym_motion test_kinematics test_contract))

.DEFAULT_GOAL := help
.PHONY: help train test test-slow test-py38 docs lint audit sbom artefacts bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

train: $(VENV)/.train-stamp ## train FrankaCabinet with HEPO; ARGS="…" passes overrides
	@$(PY) train.py $(if $(findstring task=,$(ARGS)),,task=FrankaCabinet) $(if $(findstring algo=,$(ARGS)),,algo=hepo) $(ARGS)

test: lint ## lint, and the default tests (minutes)
	@$(PY) -m pytest -n $(JOBS) $(ARGS)

test-slow: $(VENV)/.slow-stamp ## the slow tests (Warp's kernels on the CPU, learning)
	@$(PY) -m pytest -m slow $(ARGS)

test-py38: $(VENV38)/.stamp ## what Isaac Gym needs: Python 3.8 and torch 2.4 in .venv38 (2.5 GB), its own tests
	@$(VENV38)/bin/python tests/py38_smoke.py
	@$(VENV38)/bin/python -m pytest $(TESTS38) $(ARGS)

docs: $(VENV)/.dev-stamp ## docs/ as a site: site/index.html; a dead link or any other warning is an error
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build

lint: $(VENV)/.dev-stamp ## ruff, mypy, pyright on the Isaac Gym engine, vermin (nothing newer than Python 3.8)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/basedpyright --level error
	@$(VENV)/bin/vermin --quiet -t=3.8- --no-tips --violations hepo_isaac tasks train.py

# Findings that docs/security.md explains one by one; any other ends with an error, and so does an index that cannot say.
KNOWN   := PYSEC-2026-139
KNOWN38 := CVE-2025-32434 CVE-2026-24747 CVE-2025-3000 PYSEC-2026-139 CVE-2024-48063 CVE-2025-2953 CVE-2025-3730 \
	PYSEC-2025-203 PYSEC-2025-204 PYSEC-2025-206 CVE-2025-50181 CVE-2025-50182 CVE-2025-66418 CVE-2025-66471 \
	CVE-2026-25645 CVE-2025-68146 CVE-2026-40192 CVE-2025-66034 CVE-2026-4539 CVE-2025-69534 PYSEC-2026-89 \
	CVE-2025-66221 CVE-2025-47273 CVE-2025-8869 CVE-2026-1703 CVE-2026-3219 CVE-2025-71176

audit: $(VENV)/.audit-stamp ## known vulnerabilities of everything pinned (asks PyPI); what is known and why it stays: docs/security.md
	@$(VENV)/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt $(addprefix --ignore-vuln ,$(KNOWN))
	@$(VENV)/bin/pip-audit --strict --no-deps --disable-pip -r constraints-py38.txt $(addprefix --ignore-vuln ,$(KNOWN38))

sbom: $(VENV)/.audit-stamp ## CycloneDX of everything pinned, for both Pythons: build/sbom/
	@mkdir -p build/sbom
	@for lock in constraints constraints-py38; do \
		PYTHONWARNINGS=ignore $(VENV)/bin/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml \
			--output-file build/sbom/$$lock.cdx.json $$lock.txt && echo build/sbom/$$lock.cdx.json || exit 1; done

artefacts: $(VENV)/.dev-stamp ## what a robot task may have besides: TASK=Ant writes its golden trajectory and its recording
	@test -n "$(TASK)" || { echo "make artefacts needs TASK=<robot task>" >&2; exit 1; }
	@$(PY) -m tests.tasks.robots $(TASK)
	@$(PY) -m hepo_isaac.cli parity task=$(TASK) engine=mujoco_batch num_envs=4 steps=40 singles=5 \
		save=tasks/robots/recordings/$(TASK).npz

bench: $(VENV)/.train-stamp ## speed against bare physics and against PPO, as ratios
	@$(PY) -m hepo_isaac.cli bench $(ARGS)

clean: ## remove .venv, .venv38 and caches; runs/ stays
	rm -rf $(VENV) $(VENV38) .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info

$(PY):
	@if [ -z "$(PYTHON)" ]; then \
		echo "hepo_isaac needs Python 3.11 or newer, and no such python3 is on the PATH (found: $$(python3 --version 2>&1))." >&2; \
		echo "Install one, or say where it is: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "hepo_isaac needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "python's venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# A stamp is newer than what it was installed from, so nothing is installed twice.
$(VENV)/.train-stamp: $(SPEC) | $(PY)
	@echo "installing hepo-isaac[$(EXTRAS)] into $(VENV) (minutes the first time)"
	@$(PIP) -e '.[$(EXTRAS)]'
	@$(PY) -m hepo_isaac.agents.fused
	@touch $@

$(VENV)/.dev-stamp: $(SPEC) | $(PY)
	@echo "installing hepo-isaac[dev,docs,export,viewer,$(EXTRAS)] into $(VENV) (minutes the first time)"
	@$(PIP) -e '.[dev,docs,export,viewer,$(EXTRAS)]'
	@touch $@ $(VENV)/.train-stamp

# Warp's kernels can be checked without a GPU, after minutes of compilation. wandb, Ray and submitit are what tests start.
$(VENV)/.slow-stamp: $(SPEC) $(VENV)/.dev-stamp
	@$(PIP) -e '.[dev,browser,cuda,docs,export,peers,viewer,wandb,audit,sweep-joblib,sweep-slurm,sweep-ray,$(EXTRAS)]'
	@touch $@ $(VENV)/.audit-stamp

$(VENV)/.audit-stamp: $(SPEC) | $(PY)
	@echo "installing pip-audit and cyclonedx-py into $(VENV)"
	@$(PIP) pip-audit cyclonedx-bom
	@touch $@

$(VENV38)/.stamp: pyproject.toml constraints-py38.txt
	@command -v $(PY38) >/dev/null 2>&1 && $(PY38) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 8))' 2>/dev/null || { \
		echo "make test-py38 needs Python 3.8, and $(PY38) is none: install it, or name it with PY38=/path/to/python3.8" >&2; exit 1; }
	@test -x $(VENV38)/bin/python || $(PY38) -m venv $(VENV38) || { rm -rf $(VENV38); \
		echo "python's venv module is missing; on Ubuntu 20.04: apt install python3.8-venv" >&2; exit 1; }
	@echo "installing hepo-isaac[isaacgym,report,video] into $(VENV38) (2.5 GB of CUDA libraries the first time)"
	@$(VENV38)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-py38.txt pip
	@PIP_CONSTRAINT=constraints-py38.txt $(VENV38)/bin/python -m pip install --quiet --disable-pip-version-check \
		-c constraints-py38.txt -e '.[isaacgym,report,video]' pytest
	@touch $@
