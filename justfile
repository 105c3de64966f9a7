# The everyday verbs. `just` lists them; .ci/run is what a clean machine runs.

_list:
    @just --list --unsorted

# Format, lints, documentation, licences and tests: all that must pass before a commit.
check: fmt-check clippy doc deny test

test *ARGS:
    cargo test {{ARGS}}

fmt:
    cargo fmt

fmt-check:
    cargo fmt --check

clippy:
    cargo clippy --all-targets -- -D warnings

doc:
    RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps

# Licences, duplicate crates and where crates come from (`cargo install cargo-deny`).
deny:
    cargo deny check licenses bans sources

# Every file of format-spec/vectors against the code.
vectors:
    cargo test vector

# Repositories made now, read by the reader that was written from SPEC.md alone (Python, from PyPI).
reader *ARGS:
    cargo build --release
    format-spec/reader/test {{ARGS}}

# The tests that need real servers too: installs them (as root), starts them, stops them after.
servers *ARGS:
    tests/servers/install
    tests/servers/with cargo test {{ARGS}}

# Nodes killed, connections lost: Garage and Ceph of three nodes, ten minutes or more. Not in CI.
clusters *ARGS:
    cargo build --release
    tests/clusters/run {{ARGS}}

# One mechanism each: chunk, crypto, format, index, pipeline.
bench *ARGS:
    cargo bench {{ARGS}}

# Side by side with whichever of restic, rustic, borg and bupstash are installed (benches/compare/install).
compare *ARGS:
    cargo build --release
    benches/compare/run {{ARGS}}

# How time and memory grow with what is backed up: directories, trees, links, chunks, snapshots.
grow *ARGS:
    cargo build --release --bin esker --example stat-walk
    benches/grow/run {{ARGS}}

# The tables of docs/tuning.md.
tune *ARGS:
    cargo build --release
    benches/compare/tune {{ARGS}}

# A backup beside the sum of its parts.
floor *ARGS:
    cargo bench --bench floor -- {{ARGS}}

demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# Every decoder against hostile bytes, for that many seconds in all.
fuzz SECONDS="240":
    fuzz/run {{SECONDS}}

# Every stop of every command, every cut of the power, a thousand kills, an hour of stories. Not in CI.
soak *ARGS:
    ESKER_SOAK=1 ESKER_SIM_SECS="${ESKER_SIM_SECS:-3600}" \
        cargo test --test crash --test kill --test power --test simulation -- --nocapture {{ARGS}}

# Half an hour of the service at an RPO of five minutes, without growth. Not in CI.
soak-service:
    ESKER_SOAK=1 cargo test --test serve half_an_hour -- --nocapture

# Backups beside collections in orders nobody has seen, for that many seconds; `ESKER_SIM_SEED` tells one again.
sim SECONDS="600":
    ESKER_SIM_SECS={{SECONDS}} cargo test --test simulation -- --nocapture

# The collection protocol as a model: every order of steps in small scenes, and each rule broken. Half a minute.
model *ARGS:
    cd model && cargo test --locked --release {{ARGS}}

# The larger scenes, each within five minutes on one core; 6 GB of memory.
model-full:
    cd model && cargo run --locked --release -- full

# Two backups beside two collectors of two rounds and three chunks, to as many states as memory has room for.
soak-model STATES="100000000":
    cd model && cargo run --locked --release -- {{STATES}} soak
