# `make` alone lists the targets. They use the environment of CONTRIBUTING.md; another: make PYTHON=…
PYTHON ?= .venv/bin/python

help:
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 10

check: ## style and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check asrd tests packaging
	$(PYTHON) -m mypy

fmt: ## fix style
	$(PYTHON) -m ruff check --fix --exit-zero --quiet .
	$(PYTHON) -m ruff format asrd tests packaging
	$(PYTHON) -m ruff check .

test: ## the tests, as in README.md
	$(PYTHON) -m pytest

coverage: ## the tests, with branch coverage and its bound
	$(PYTHON) -m pytest --cov --cov-report=term-missing:skip-covered

site: ## the pages of docs/ as a web site, in build/site
	$(PYTHON) -m sphinx -q -W --keep-going docs build/site

docs: ## write the parts of the pages that repeat declarations
	$(PYTHON) -m tests.support.docs

deb: ## the Debian packages, into dist/
	packaging/build-deb

pythons: ## the tests on the other Pythons; needs python3.12 and root (tests/on_python)
	tests/on_python python3.12
	tests/on_python trixie
	tests/on_python forky

systemd: ## packages and units in a container with systemd; needs root
	$(PYTHON) -m pytest -n 0 -m '(systemd or package) and not soak'

soak: ## the fault campaign, short; ASRD_SOAK_SECONDS=… for longer
	$(PYTHON) -m pytest -n 0 -m 'soak and not systemd'

fuzz: ## the fuzzers, short; ASRD_FUZZ_SECONDS=… for longer; needs the extra `fuzz`
	$(PYTHON) -m pytest -n 2 --dist load -m fuzz

bench: ## all tables of docs/performance.md, a quarter of an hour; needs the extra `bench`
	$(PYTHON) -m tests.benchmarks --quick

.PHONY: help check fmt test coverage site docs deb pythons systemd soak fuzz bench
