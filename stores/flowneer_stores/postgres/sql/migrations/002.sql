-- Runs that somebody should go on with are found: when, by priority, and not those that share a limit which is reached.
-- `due` is from when on somebody should; with a running one at once, where nobody works on it.
ALTER TABLE {schema}.flowneer_runs
    ADD COLUMN wake bigint,
    ADD COLUMN priority bigint NOT NULL DEFAULT 0,
    ADD COLUMN key text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN begun bigint,
    ADD COLUMN recoveries bigint NOT NULL DEFAULT 0,
    ADD COLUMN cancelling boolean NOT NULL DEFAULT false,
    ADD COLUMN due bigint
        GENERATED ALWAYS AS (CASE status WHEN 'running' THEN 0 WHEN 'waiting' THEN wake END) STORED;

-- Until now every run began when it was created. When those that wait are to be woken is not known: it is looked once.
UPDATE {schema}.flowneer_runs SET begun = created, wake = CASE status WHEN 'waiting' THEN updated END;

CREATE INDEX flowneer_runs_due ON {schema}.flowneer_runs (flow, priority, due, id) INCLUDE (key) WHERE due IS NOT NULL;

CREATE INDEX flowneer_runs_key ON {schema}.flowneer_runs (key) WHERE key <> '';

CREATE INDEX flowneer_runs_cancelling ON {schema}.flowneer_runs (status) WHERE cancelling;

CREATE INDEX flowneer_runs_begun ON {schema}.flowneer_runs (flow, begun) WHERE begun IS NOT NULL;

CREATE INDEX flowneer_runs_running ON {schema}.flowneer_runs (flow, key) WHERE status = 'running';
