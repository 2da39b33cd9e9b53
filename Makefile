SHELL = bash
ACTIVATE = . .venv/bin/activate

# The newest Python that is there, runs and can make an environment; PYTHON=... names another.
PYTHON =
PYTHONS = $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)
USABLE = import bz2, ctypes, ensurepip, lzma, sqlite3, ssl, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

# An environment names its own path: one that was moved or copied, or whose Python is gone, does not fit.
FITS := $(shell { $(ACTIVATE) && test "$$VIRTUAL_ENV/bin" -ef .venv/bin && .venv/bin/python -c '$(USABLE)' && echo yes; } 2>/dev/null)
STALE := $(if $(FITS),,$(wildcard .venv/installed))

# Of the user's settings of pip only those of where packages come from fit every environment. Others (user, target,
# prefix, ...) do not reach pip: neither from the environment nor, where INSTALL has an option of its own, from pip.conf.
SOURCES = INDEX_URL EXTRA_INDEX_URL FIND_LINKS NO_INDEX TRUSTED_HOST PROXY CERT CLIENT_CERT TIMEOUT DEFAULT_TIMEOUT \
	RETRIES CACHE_DIR NO_CACHE_DIR KEYRING_PROVIDER CONFIG_FILE
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH $(filter-out $(SOURCES:%=PIP_%),$(filter PIP_%,$(.VARIABLES)))

# Without isolation, what has no wheel is built by the setuptools of requirements-pip.txt, not by the latest.
INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation \
	--no-user --target= --root=/ --prefix="$$PWD/.venv"
DEPENDENCIES = .venv/bin/python -c 'import tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")'
LOCK = .venv/bin/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"

# DVC asks for the user's name and home, and a container's user may have none.
ifeq ($(LOGNAME)$(USER)$(LNAME)$(USERNAME),)
export LOGNAME := $(shell id -un 2>/dev/null || id -u)
endif
ifeq ($(shell test -w "$$HOME" && echo yes),)
export HOME := $(CURDIR)/.venv
endif

.PHONY: help repro test lint bench demo lock clean $(STALE)

repro: .venv/installed ## run the pipeline: all stages whose inputs changed, then the table of results
	@$(ACTIVATE); if test -e .git || git rev-parse --git-dir >/dev/null 2>/dev/null; then \
		! grep -qs no_scm .dvc/config.local || python -m dvc config --local --unset core.no_scm; \
	else python -m dvc config --local core.no_scm true; fi
	@$(ACTIVATE); set -o pipefail; PYTHONUNBUFFERED=1 python -m dvc repro | (trap '' INT; grep --line-buffered -Ev '$(HINTS)' || true)
	@echo; awk '/^\|/ { table = 1; print; next } table { exit }' metrics/report.md
	@echo; echo 'Plots, intervals and all figures: metrics/report.html'

# Of what DVC prints on a run: not the commands behind the stages, nor hints for those who keep the results in Git.
# grep, since some awks read a pipe in blocks, and would show nothing for minutes.
HINTS = ^$$|^> |^(Generating|Updating) lock file|^To (track|enable)|^[[:blank:]](git add|dvc config)|^Use .dvc push

test: .venv/installed-dev ## run the tests, except slow ones (PYTEST_ADDOPTS="-m slow" runs those)
	@$(ACTIVATE) && python -m pytest

lint: .venv/installed-dev ## check style, spelling, types and which package imports which
	@$(ACTIVATE) && ruff check && ruff format --check && codespell && mypy && python -m pytest -n 0 tests/test_imports.py

bench: .venv/installed-bench ## compare the models' speed with peers' (BENCH="--help" lists the options)
	@$(ACTIVATE) && python -m bench $(BENCH)

demo: .venv/installed bench/web/node_modules ## serve the release's page to this machine (DEMO="--help" lists the options)
	@$(ACTIVATE) && python -m src.demo $(DEMO)

lock: .venv/installed-dev ## pin what pyproject.toml asks for in requirements*.txt
	$(LOCK) pyproject.toml -o requirements.txt
	for group in bench cluster media dev; do $(LOCK) --group $$group --excludes requirements.txt -o requirements-$$group.txt; done
	$(LOCK) --group pip -c requirements.txt -o requirements-pip.txt

clean: ## remove the environment and what tools keep here
	rm -rf .venv .pytest_cache .hypothesis .mypy_cache .ruff_cache .optuna .embeddings

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile

# A build of torch in a folder of pip's find-links goes first: pip prefers PyPI's, for whose hash the index vouches too.
.venv/installed: requirements.txt requirements-pip.txt
	$(if $(FITS),,@for python in $(PYTHONS); do $$python -c '$(USABLE)' 2>/dev/null && break; python=; done; \
	test "$$python" || { echo >&2 'Python 3.11, 3.12 or 3.13 (with venv, ssl and sqlite3) is needed. Not one: $(PYTHONS)'; \
	exit 1; }; $$python -m venv $(STALE:%=--clear) .venv)
	@.venv/bin/python -c '$(USABLE)' || { echo >&2 '.venv is of another Python: remove it, then make it again'; exit 1; }
	$(INSTALL) -r requirements-pip.txt
	@$(INSTALL) --no-index --no-deps torch -c requirements.txt 2>/dev/null || true
	set -o pipefail; $(DEPENDENCIES) | $(INSTALL) -r /dev/stdin -c requirements.txt
	touch $@

bench/web/node_modules: bench/web/package-lock.json
	@command -v npm >/dev/null || { echo >&2 'npm (Node.js) is needed: it fetches onnxruntime-web'; exit 1; }
	cd bench/web && npm ci --no-audit --no-fund
	touch $@

.venv/installed-%: requirements-%.txt .venv/installed
	$(INSTALL) -r $<
	touch $@
