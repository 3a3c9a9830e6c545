CREATE TABLE flowneer_runs (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    flow TEXT NOT NULL,
    state_type TEXT NOT NULL,
    steps TEXT NOT NULL,
    status TEXT NOT NULL,
    error TEXT,
    epoch INTEGER NOT NULL,
    owner TEXT,
    lease_until INTEGER NOT NULL,
    last INTEGER NOT NULL DEFAULT -1,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) STRICT;

CREATE TABLE flowneer_versions (
    run INTEGER NOT NULL REFERENCES flowneer_runs (id),
    seq INTEGER NOT NULL,
    base INTEGER NOT NULL,
    fork_of TEXT,
    step_index INTEGER NOT NULL,
    path TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    body BLOB NOT NULL,
    parent_digest BLOB NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT;
