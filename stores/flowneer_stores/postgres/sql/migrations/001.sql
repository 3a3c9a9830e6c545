-- Runs, and how each stands. `ticket` is that of the call which took the run last: it knows again what it has done.
-- Rows that are updated stay on their page, which is left one third empty for that.
CREATE TABLE {schema}.flowneer_runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id text COLLATE "C" NOT NULL UNIQUE,
    flow text COLLATE "C" NOT NULL,
    state_type text NOT NULL,
    steps text NOT NULL,
    status text COLLATE "C" NOT NULL,
    error text,
    epoch bigint NOT NULL,
    owner text COLLATE "C",
    ticket bigint NOT NULL,
    lease_until bigint NOT NULL,
    last bigint NOT NULL DEFAULT -1,
    created bigint NOT NULL,
    updated bigint NOT NULL,
    first bigint NOT NULL,
    fork_of text,
    tags jsonb NOT NULL,
    seal bytea NOT NULL,
    signals bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 66);

CREATE INDEX flowneer_runs_status ON {schema}.flowneer_runs (status);

CREATE INDEX flowneer_runs_flow ON {schema}.flowneer_runs (flow);

CREATE INDEX flowneer_runs_owner ON {schema}.flowneer_runs (owner) WHERE owner IS NOT NULL;

CREATE INDEX flowneer_runs_tags ON {schema}.flowneer_runs USING gin (tags jsonb_path_ops);

-- Versions, appended only under a lock on their run: so no foreign key is needed, which would cost a look-up for each.
CREATE TABLE {schema}.flowneer_versions (
    run bigint NOT NULL,
    seq bigint NOT NULL,
    base bigint NOT NULL,
    fork_of text,
    step_index bigint NOT NULL,
    path text NOT NULL,
    timestamp bigint NOT NULL,
    body bytea NOT NULL,
    parent_digest bytea NOT NULL,
    digest bytea NOT NULL,
    PRIMARY KEY (run, seq)
);

-- Messages into runs, numbered from 1 within each. `ticket` is that of the call that sent it.
CREATE TABLE {schema}.flowneer_signals (
    run bigint NOT NULL,
    number bigint NOT NULL,
    name text NOT NULL,
    payload bytea NOT NULL,
    sent bigint NOT NULL,
    ticket bigint NOT NULL,
    PRIMARY KEY (run, number),
    UNIQUE (run, ticket)
);

-- What belongs to a run goes with it. A statement within a function sees what was stored while the lock was waited for.
CREATE FUNCTION {schema}.flowneer_forget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM {schema}.flowneer_versions WHERE run = OLD.id;
    DELETE FROM {schema}.flowneer_signals WHERE run = OLD.id;
    RETURN NULL;
END
$$;

CREATE TRIGGER flowneer_runs_purged AFTER DELETE ON {schema}.flowneer_runs
FOR EACH ROW EXECUTE FUNCTION {schema}.flowneer_forget();
