# The two commands of the README, and what they need.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: results test lint schema clean
# Each of the many short jobs would compile the libraries it imports again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
READY := $(VENV)/.ready
VALIDATOR := $(VENV)/crate-validator
export STUDY := config.yaml
ACTIVATE := source $(VENV)/bin/activate

results: $(READY)
	@$(ACTIVATE); workflow/scripts/results.sh "$$STUDY"

test: lint $(VALIDATOR)/.ready
	@$(ACTIVATE); export OMP_NUM_THREADS=1; python -m pytest -n 2 --dist worksteal -q --durations=15

lint: $(READY)
	@$(ACTIVATE); ruff check . && ruff format --check . && mypy && snakefmt --check Snakefile workflow
	@$(ACTIVATE); snakemake --lint

schema: $(READY)
	@$(ACTIVATE); coolbits schema > workflow/schemas/study.schema.json

$(READY): envs/coolbits.lock envs/make_venv.sh pyproject.toml
	@envs/make_venv.sh $(VENV)
	@touch $@

# Others' validator of crates wants an older rich than Snakemake: it has an environment of its own.
$(VALIDATOR)/.ready: envs/crate-validator.txt | $(READY)
	@envs/make_venv.sh $(VALIDATOR) $<
	@touch $@

# What the workflow made; .venv stays.
clean:
	GLOBIGNORE=results/README.md; rm -rf results/* .snakemake
