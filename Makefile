# vmnic: `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.lock-installed

.PHONY: help venv lint audit fmt crds docs test test-unit test-cluster fuzz fuzz-vm test-kernel test-kind kind-up kind-down image sbom chart release-files bench demo demo-down lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## Make .venv from the lock file; gives .venv/bin/kubectl-vmnic

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("vmnic needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked packages into $(VENV)"
	@$(BIN)/python -m pip -q --disable-pip-version-check install --require-hashes -r requirements.lock
	@$(BIN)/python -m pip -q --disable-pip-version-check install --no-deps --no-build-isolation -e .
	@touch $@

lock: ## Regenerate requirements.lock and requirements-image.lock from pyproject.toml
	@$(PYTHON) -m venv .cache/uv && .cache/uv/bin/pip -q install uv
	@.cache/uv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra dev pyproject.toml -o requirements.lock
	@.cache/uv/bin/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group audit -o requirements-audit.lock
	@.cache/uv/bin/uv pip compile -q --universal --python-version 3.13 --generate-hashes --no-emit-index-url --no-header --overrides not-in-image.txt -c requirements.lock pyproject.toml -o requirements-image.lock

crds: venv ## Regenerate crds/ from the models
	@$(BIN)/python -m vmnic.api.crd crds

docs: venv ## Regenerate docs/reference from the models, and docs/pictures from the tutorial
	@$(BIN)/python docs/make_reference.py docs/reference
	@$(BIN)/python -m docs.make_pictures

changelog: venv ## Write CHANGELOG.md again from the fragments in changelog.d
	@$(BIN)/python docs/make_changelog.py

fmt: venv ## Format the code
	@$(BIN)/ruff check -q --fix-only . && $(BIN)/ruff format -q .

lint: venv ## ruff, mypy --strict, import-linter, and linters of YAML, shell, Dockerfile, workflows, security
	@$(BIN)/ruff check -q --no-cache . && $(BIN)/ruff format -q --no-cache --check .
	@$(BIN)/python -m tests.harness.language
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/yamllint -s crds deploy/base deploy/components deploy/overlays deploy/*.yaml deploy/helm/*.yaml examples .github .yamllint.yaml
	@$(BIN)/bandit -q -c pyproject.toml -r operator deploy docs --severity-level medium
	@$(BIN)/shellcheck --severity warning .ci/run $$(git ls-files '*.sh')
	@git ls-files '*Dockerfile' | xargs -r $(BIN)/hadolint --config .hadolint.yaml
	@$(BIN)/zizmor --quiet --offline --persona pedantic .github
	@echo "lint: ok"

audit: venv .venv-audit/.lock-installed ## Judge the rendered manifests: schemas of Kubernetes, checkov (offline)
	@$(BIN)/python -m tests.harness.audit .venv-audit/bin/checkov

.venv-audit/.lock-installed: requirements-audit.lock
	@test -x .venv-audit/bin/python || $(PYTHON) -m venv .venv-audit
	@echo "installing checkov into .venv-audit"
	@.venv-audit/bin/python -m pip -q --disable-pip-version-check install --require-hashes -r requirements-audit.lock
	@touch $@

golden: venv ## Write the golden files again; the commit says why they differ
	@$(BIN)/python -m tests.harness.programs >/dev/null
	@$(BIN)/python -m tests.unit.golden

test: test-unit test-cluster test-kernel test-kind ## Every tier that this machine can run

test-unit: venv ## Pure code, the simulated host in process, and 2,000 inputs of junk to each boundary
	@$(BIN)/pytest -n 2 tests/unit tests/fuzz

mutants: venv ## Plant faults in a copy of the tree, each of which tests must notice; WORDS="quota" plants some
	@$(BIN)/python -m tests.mutants $(WORDS)

test-cluster: venv ## A real control plane with KubeVirt's own parts
	@$(BIN)/python -m tests.harness.programs >/dev/null
	@$(BIN)/pytest tests/cluster

fuzz: venv ## 100,000 inputs of junk to every reader, cache, reconciler and command; VMNIC_FUZZ_SEED repeats a run
	@VMNIC_FUZZ_COUNT=$${VMNIC_FUZZ_COUNT:-100000} VMNIC_FUZZ_SEED=$${VMNIC_FUZZ_SEED:-random} $(BIN)/pytest -n 2 --timeout 0 tests/fuzz

fuzz-vm: venv ## 20,000 VMs with policies, each patch judged by KubeVirt; VMNIC_FUZZ_SEED repeats a run
	@$(BIN)/python -m tests.harness.programs >/dev/null
	@VMNIC_FUZZ_COUNT=$${VMNIC_FUZZ_COUNT:-20000} VMNIC_FUZZ_SEED=$${VMNIC_FUZZ_SEED:-$$RANDOM$$RANDOM} $(BIN)/pytest -s tests/cluster/test_judge.py

test-kernel: venv ## A real kernel in QEMU: contract, agent, container, libvirt (needs root and Debian packages)
	@$(BIN)/python -m tests.kernel

test-kind: venv ## The image, the manifests, a real kubelet and VMs, in containers with simulated NICs (needs root)
	@$(BIN)/python -m tests.kind test

kind-up: venv ## A kind cluster with vmnic, KubeVirt, and two workers with simulated NICs that run VMs
	@$(BIN)/python -m tests.kind up

kind-down: venv ## Remove it
	@$(BIN)/python -m tests.kind down

image: venv sbom ## The container image vmnic:0.1.0, by the docker or podman that works here
	@$(BIN)/python -m tests.kind image

sbom: venv ## build/sbom.cdx.json: what is in the image (CycloneDX)
	@mkdir -p build
	@$(BIN)/cyclonedx-py requirements requirements-image.lock --pyproject pyproject.toml --output-reproducible -o build/sbom.cdx.json 2>/dev/null

chart: venv ## Make the Helm chart in build/chart/vmnic from the kustomize base
	@$(BIN)/python -m tests.harness.packaging

release-files: venv ## Manifests and chart in build/release that name an image by digest: IMAGE=… DIGEST=sha256:…
	@$(BIN)/python -m tests.harness.packaging "$(IMAGE)" "$(DIGEST)"

bench: venv ## Speed and memory, each beside its floor; PARTS="agent cli" measures some
	@$(BIN)/python -m tests.harness.programs >/dev/null
	@$(BIN)/python -m tests.bench $(PARTS)

demo: venv ## A cluster on this machine, three simulated nodes, and what vmnic does with them
	@$(BIN)/python -m tests.harness.demo

demo-down: venv ## Stop what `make demo` left running
	@$(BIN)/python -m tests.harness.demo down

clean: ## Remove what the targets made here (not the cache of built programs)
	@rm -rf $(VENV) .venv-audit .cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build
