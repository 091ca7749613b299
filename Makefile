# Fresh clone, fresh machine: each target sets up .venv and runs what the README also gives for an existing environment.
PYTHON ?= python3
RUNS ?= runs

.PHONY: quickstart test faults lint clean

quickstart: .venv/quickstart
	.venv/bin/python -m imagenet_jax.main --config=configs/quickstart.py --workdir=$(RUNS)/quickstart

test: .venv/test
	.venv/bin/python -m pytest -n auto --dist=loadfile

# Everything that docs/faults.md lists, slow or not.
faults: .venv/test
	IMAGENET_JAX_KILLS=50 .venv/bin/python -m pytest -m faults -n auto --dist=loadfile --durations=10

lint: .venv/lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/pyright --pythonpath .venv/bin/python
	.venv/bin/shellcheck launch/*.sh launch/slurm.sbatch

# One stamp an extra of pyproject.toml: installed again when that file changes.
.venv/quickstart .venv/test .venv/lint: .venv/%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 2; }
	[ -x .venv/bin/python ] || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --editable '.[$*]'
	@touch $@

clean:
	rm -rf .venv .jax_cache
