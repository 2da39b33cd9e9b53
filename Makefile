PYTHON ?= $(shell command -v python3.11 || command -v python3)
ACTIVATE = . .venv/bin/activate

# Columns that the table of experiments leaves out: what else of the metrics moves whenever the accuracy does.
DETAIL = .*(_ci|cllr|dcf|difference\.top1|smallest|calibration|threshold|json:weight_bits|chosen|^(Created|State|Executor)$$).*

.PHONY: repro test bench experiments clean

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

experiments: .venv/installed
	@$(ACTIVATE) && dvc exp show --only-changed --hide-queued --hide-workspace --no-pager --md --precision 4 \
		--drop '$(DETAIL)' | sed 's#metrics/##g; s#\.json:#:#g'

clean:
	rm -rf .venv .pytest_cache .hypothesis .optuna
