# Every target is `python dev.py TARGET`, which also runs on Windows.
PYTHON ?= python3

.PHONY: demo demo-orbit test check setup

demo: ## one picture to a mesh in outputs/, by the small model in the package
	$(PYTHON) dev.py demo

demo-orbit: ## reconstruct the example orbit into outputs/
	$(PYTHON) dev.py demo-orbit

test: ## lint, types and all tests
	$(PYTHON) dev.py test

check: ## lint and types alone
	$(PYTHON) dev.py check

setup: ## only make the environment
	$(PYTHON) dev.py setup
