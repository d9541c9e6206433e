# The same recipes as the README, for those who have `just`. Nothing needs it.

# What there is
default:
    @just --list

# Install what is missing, build, make the demo world, run the quickstart, print its table
run:
    ./bootstrap.sh

# Install what is missing, run all tests
test *ARGS:
    ./bootstrap.sh test {{ARGS}}

# Install what is missing
setup:
    ./bootstrap.sh setup

# What CI runs; `just ci lints schema` runs these steps only
ci *STEPS:
    .ci/run {{STEPS}}

# Formatting and lints
check:
    .ci/run formatting lints

# Format the sources
format:
    cargo fmt

# Write the JSON Schemas again from the option types
schema: build
    target/release/vlp schema > schemas/experiment.schema.json.tmp
    mv schemas/experiment.schema.json.tmp schemas/experiment.schema.json

# Build the documentation of the library
doc:
    cargo doc --release --locked --no-deps

# Run the benchmarks
bench *ARGS:
    cargo bench --locked {{ARGS}}

# Kill a small two-rank run at 100 random moments; each must end with the same bytes
faults POINTS="100":
    FAULT_POINTS={{POINTS}} cargo test --release --locked --test faults

# The Slurm launcher against a real Slurm with two nodes on this machine (root; installs slurm-wlm and munge)
test-slurm:
    scripts/slurm_test.sh

# The MLflow sink against a real MLflow server (fetched from PyPI once)
test-mlflow:
    scripts/mlflow_test.sh

# The tests on LibTorch
test-tch:
    .ci/run libtorch

# The binary alone
build:
    ./bootstrap.sh setup
    cargo build --release --locked

# The binary with LibTorch as a second engine
build-tch:
    ./bootstrap.sh setup-tch
    eval "$(scripts/libtorch.sh)" && cargo build --release --locked --features tch
