PYTHON ?= $(shell command -v python3.11 || command -v python3)
ACTIVATE = . .venv/bin/activate
# Without isolation, what has no wheel is built by the setuptools of requirements-pip.txt, not by the latest.
INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation
LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock"

# What the narrow tables leave out: what else of the metrics moves whenever the accuracy does.
DETAIL = _ci|cllr|dcf|difference\.top1|smallest|calibration|threshold|json:weight_bits|chosen

.PHONY: repro test bench lock experiments compare clean

repro: .venv/installed
	@$(ACTIVATE) && dvc repro
	@awk '/^\|/ { table = 1; print; next } table { exit }' metrics/report.md

test: .venv/installed
	@$(ACTIVATE) && python -m pytest

bench: .venv/installed-bench
	@$(ACTIVATE) && python -m bench $(BENCH)

# A build of torch in a folder of PIP_FIND_LINKS goes first: pip prefers PyPI's, for whose hash the index vouches too.
.venv/installed: requirements.in requirements.txt requirements-pip.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "Python 3.11 is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(INSTALL) -r requirements-pip.txt
	$(if $(PIP_FIND_LINKS),-$(INSTALL) --no-index --no-deps torch -c requirements.txt)
	$(INSTALL) -r requirements.in -c requirements.txt
	touch $@

.venv/installed-bench: .venv/installed requirements-bench.txt
	$(INSTALL) -r requirements-bench.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(INSTALL) -r requirements-dev.txt
	touch $@

lock:
	$(LOCK) requirements.in -o requirements.txt
	$(LOCK) --excludes requirements.txt requirements-bench.in -o requirements-bench.txt
	$(LOCK) --excludes requirements.txt requirements-dev.in -o requirements-dev.txt
	$(LOCK) -c requirements.txt requirements-pip.in -o requirements-pip.txt

experiments: .venv/installed
	@$(ACTIVATE) && dvc exp show --only-changed --hide-queued --hide-workspace --no-pager --md --precision 4 \
		--drop '.*($(DETAIL)|^(Created|State|Executor)$$).*' | sed 's#metrics/##g; s#\.json:#:#g'

compare: .venv/installed
	@$(ACTIVATE) && dvc metrics diff --md --precision 4 $(REVS) | grep -Ev '$(DETAIL)' | sed 's#metrics/##g; s#\.json##g'

clean:
	rm -rf .venv .pytest_cache .hypothesis .optuna
