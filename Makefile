# make study   run the whole study (PRESET=laptop, BASE=scan.npz: its own counts, SIMULATED=1: others on its object, CORES=2)
# make science  the test bed: every arm on the specimens of development, and what the network gains (hours; STAR=star.npz KEPT_BACK=1: the others)
# make test    lint, types, order of imports, tests, notebooks (CORES=2)
# make quick  lint, types, order of imports and the tests that need no long computation, in under two minutes (CORES=2)
# make lab     JupyterLab on this machine only, with a token
# make peers   files we write, read by ptychodus and cdtools (installs 2 GB)
# make peer-NAME   environments of benchmarks/peers.py: xptycho, phaser, ptyrad (1 to 2 GB each), ptylab (academic use only), bm3d (non-commercial use only, small)
# make slurm-test   the study on a SLURM of its own on this machine (Debian; 4 MB)
# make wheel-test   a wheel of the project, alone in a fresh environment, runs the study (installs 2 GB)
# make crate-test   the RO-Crate of a run against Process Run Crate (RUN=reports/...; needs the network)
# make browser      a Chromium in .browser, in which `make test` then opens the report (Debian; 90 MB)
# Each one makes its environment in .venv first, if it is missing or out of date.

VENV ?= .venv
PYTHON ?= python3
PRESET ?= laptop
CORES ?= 2
BASE ?=
SIMULATED ?=
KEPT_BACK ?=
STAR ?=
REPORTS ?= reports

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

PTYCHODUS := .venv-peer-ptychodus
CDTOOLS := .venv-peer-cdtools
CRATE := .venv-peer-crate
XPTYCHO := .venv-peer-xptycho
PTYLAB := .venv-peer-ptylab
PHASER := .venv-peer-phaser
PTYRAD := .venv-peer-ptyrad
BM3D := .venv-peer-bm3d
RUN ?= $(lastword $(sort $(wildcard reports/*/ro-crate-metadata.json)))

.PHONY: study science test quick lab peers peer-xptycho peer-ptylab peer-phaser peer-ptyrad peer-bm3d slurm-test wheel-test crate-test browser notebooks clean

study: $(STAMP)
	@$(BIN)/study run --preset "$(PRESET)" --cores "$(CORES)" --reports "$(REPORTS)" $(if $(BASE),--base-npz "$(BASE)") $(if $(SIMULATED),--simulated)

science: $(STAMP)
	@$(BIN)/study science --cores "$(CORES)" --reports "$(REPORTS)" $(if $(KEPT_BACK),--kept-back) $(if $(STAR),--star "$(STAR)")

test: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	OMP_NUM_THREADS=1 $(BIN)/pytest -n "$(CORES)" --dist loadfile --no-loadscope-reorder --durations=20 --durations-min=5

quick: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n "$(CORES)" --dist loadfile -m "not slow and not notebook" -p no:nbval -o addopts=--strict-markers

lab: $(STAMP)
	$(BIN)/jupyter lab --ip=127.0.0.1 --notebook-dir=.

# Each peer lives in an environment of its own and reads our files in a process of its own.
peers: $(STAMP) $(PTYCHODUS)/.installed $(CDTOOLS)/.installed
	OMP_NUM_THREADS=1 $(BIN)/pytest --peers tests/peers

# Their reconstructions beside ours: benchmarks/peers.py runs those that are installed.
peer-xptycho: $(XPTYCHO)/.installed
peer-ptylab: $(PTYLAB)/.installed
peer-phaser: $(PHASER)/.installed
peer-ptyrad: $(PTYRAD)/.installed
peer-bm3d: $(BM3D)/.installed

# Debian's packages are unpacked into .slurm and .browser; nothing is installed, and no daemon stays.
slurm-test: $(STAMP) .slurm/.unpacked
	OMP_NUM_THREADS=1 $(BIN)/pytest --slurm -m slurm tests/slurm

.slurm/.unpacked:
	@$(PYTHON) tests/debian.py .slurm slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge
	@touch $@

# Everything in .wheel-test, made anew: the wheel, its environment, an empty folder to work in.
wheel-test:
	rm -rf .wheel-test
	$(PYTHON) -m venv .wheel-test/venv
	.wheel-test/venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir .wheel-test .
	.wheel-test/venv/bin/python -m pip install --progress-bar off --disable-pip-version-check --constraint constraints.txt .wheel-test/*.whl
	mkdir .wheel-test/empty
	cd .wheel-test/empty && ../venv/bin/study design --preset laptop
	cd .wheel-test/empty && ../venv/bin/study run --preset smoke --cores "$(CORES)"
	cd .wheel-test/empty && ../venv/bin/study verify reports/*_smoke_*

crate-test: $(CRATE)/.installed
	@test -n "$(RUN)" || { echo "no run below reports/; give RUN=FOLDER" >&2; exit 2; }
	$(CRATE)/bin/rocrate-validator -y validate --no-paging --profile-identifier process-run-crate --requirement-severity REQUIRED $(patsubst %/ro-crate-metadata.json,%,$(RUN))

browser: .browser/.unpacked

.browser/.unpacked:
	@$(PYTHON) tests/debian.py .browser chromium-headless-shell
	@touch $@

$(PTYCHODUS)/.installed: PACKAGE := ptychodus==1.7.0
$(CDTOOLS)/.installed: PACKAGE := --constraint constraints.txt cdtools-py==0.3.2
$(CRATE)/.installed: PACKAGE := roc-validator==0.13.0
$(XPTYCHO)/.installed: PACKAGE := --constraint constraints.txt xptycho==0.1.0
$(PTYLAB)/.installed: PACKAGE := ptylab==0.3.7
$(PHASER)/.installed: PACKAGE := phaserEM[jax]==0.3.1
$(PTYRAD)/.installed: PACKAGE := --constraint constraints.txt ptyrad==1.0.0
$(BM3D)/.installed: PACKAGE := bm3d==4.0.3
$(PTYCHODUS)/.installed $(CDTOOLS)/.installed $(CRATE)/.installed $(XPTYCHO)/.installed $(PTYLAB)/.installed $(PHASER)/.installed $(PTYRAD)/.installed $(BM3D)/.installed:
	@echo "installing $(PACKAGE) into $(@D), some minutes ..."
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --progress-bar off --disable-pip-version-check $(PACKAGE)
	@touch $@

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("Python 3.11, 3.12 or 3.13 is needed, this is " + sys.version.split()[0] + "; run: make PYTHON=python3.12 ...")'
	@echo "installing into $(VENV), one to five minutes; unpacking 2 GB at the end is silent for a while ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --progress-bar off --disable-pip-version-check --constraint constraints.txt --editable '.[lab,pbs,slurm,test]'
	@touch $@

clean:
	rm -rf $(VENV) $(PTYCHODUS) $(CDTOOLS) $(CRATE) $(XPTYCHO) $(PTYLAB) $(PHASER) $(PTYRAD) $(BM3D) .slurm .browser .wheel-test .mypy_cache .ruff_cache .pytest_cache

# Execute the notebooks in place at smoke size, so that their stored outputs are current.
notebooks: $(STAMP)
	rm -rf reports/lab
	OMP_NUM_THREADS=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace notebooks/*.ipynb
	$(BIN)/python workflow/text_outputs.py notebooks/*.ipynb
