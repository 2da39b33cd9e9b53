PYTHON ?= $(shell command -v python3.11 || command -v python3)
ACTIVATE = . .venv/bin/activate

.PHONY: repro test bench clean

repro: .venv/installed
	@$(ACTIVATE) && dvc repro
	@awk '/^\|/ { table = 1; print; next } table { exit }' metrics/report.md

test: .venv/installed
	@$(ACTIVATE) && python -m pytest

bench: .venv/installed-bench
	@$(ACTIVATE) && python -m bench $(BENCH)

.venv/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "Python 3.11 is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-bench: .venv/installed requirements-bench.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	touch $@

clean:
	rm -rf .venv .pytest_cache .hypothesis .optuna
