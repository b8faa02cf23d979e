# Every target is `python dev.py TARGET`, which also runs on Windows.
PYTHON ?= python3

.PHONY: demo test check setup

demo: ## reconstruct the example orbit into outputs/
	$(PYTHON) dev.py demo

test: ## lint, types and all tests
	$(PYTHON) dev.py test

check: ## lint and types alone
	$(PYTHON) dev.py check

setup: ## only make the environment
	$(PYTHON) dev.py setup
