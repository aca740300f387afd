# The commands of the README. GPU=1 adds --gpu to the first two; PYTHON=python3.12 picks another Python.
#
#   make verify    verify the pair that ships
#   make test      run the tests
#   make docs      build docs/ as a site into build/site; a broken link is an error
#
# The first two install into .venv, once, and again where pyproject.toml or constraints.txt has changed.

PYTHON ?= python3
GPU ?=

VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
GPU_OPTION := $(if $(filter-out 0 no false,$(GPU)),--gpu)

.PHONY: verify test docs install clean
.DEFAULT_GOAL := verify

verify: $(INSTALLED)
	$(VENV_PYTHON) -m equivcheck verify $(GPU_OPTION)

test: $(INSTALLED)
	$(VENV_PYTHON) -m pytest $(GPU_OPTION)

docs: $(INSTALLED)
	$(VENV_PYTHON) -m pip install --quiet --group docs
	$(VENV_PYTHON) -m mkdocs build --strict

install: $(INSTALLED)

clean:
	rm -rf $(VENV)

# Exit status 0, and the version printed, where a torch that pyproject.toml admits comes from outside the environment that asks.
define MACHINES_TORCH
import re, sys, tomllib
from importlib.metadata import PackageNotFoundError, distribution
try:
    torch = distribution("torch")
except PackageNotFoundError:
    sys.exit(1)
if str(torch.locate_file("")).startswith(sys.prefix):
    sys.exit(1)
def release(version):
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
with open("pyproject.toml", "rb") as file:
    dependencies = tomllib.load(file)["project"]["dependencies"]
if release(torch.version) < release(next(line for line in dependencies if line.startswith("torch>="))):
    sys.exit(1)
print(torch.version)
endef
export MACHINES_TORCH

# A torch that the machine already has (often the one built for its GPU) stays, with all that came with it.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("equivcheck needs Python 3.11 or newer, and $(PYTHON) is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@echo "installing into $(VENV), which happens once and can take some minutes"
	@$(PYTHON) -m venv --system-site-packages $(VENV)
	@if version=$$($(VENV_PYTHON) -c "$$MACHINES_TORCH"); then \
		echo "using this machine's torch $$version"; \
		{ sed '/^# torch and what it brings/,$$d' constraints.txt; echo "torch==$$version"; } > $(VENV)/constraints.txt; \
	else \
		$(PYTHON) -m venv $(VENV) && cp constraints.txt $(VENV)/constraints.txt; \
	fi
	@$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/constraints.txt --upgrade pip
	@$(VENV_PYTHON) -m pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[report]' --group dev
	@touch $@
