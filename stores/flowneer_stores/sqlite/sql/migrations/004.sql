-- Runs that somebody should go on with are found: when, by priority, and not those that share a limit which is reached.
ALTER TABLE flowneer_runs ADD COLUMN wake INTEGER;

ALTER TABLE flowneer_runs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;

ALTER TABLE flowneer_runs ADD COLUMN key TEXT NOT NULL DEFAULT '';

ALTER TABLE flowneer_runs ADD COLUMN begun INTEGER;

ALTER TABLE flowneer_runs ADD COLUMN recoveries INTEGER NOT NULL DEFAULT 0;

ALTER TABLE flowneer_runs ADD COLUMN cancelling INTEGER NOT NULL DEFAULT 0;

-- From when on somebody should go on with it; with a running one at once, where nobody works on it.
ALTER TABLE flowneer_runs ADD COLUMN due INTEGER
    GENERATED ALWAYS AS (CASE status WHEN 'running' THEN 0 WHEN 'waiting' THEN wake END) VIRTUAL;

-- Until now every run began when it was created. When those that wait are to be woken is not known: it is looked once.
UPDATE flowneer_runs SET begun = created, wake = CASE status WHEN 'waiting' THEN updated END;

CREATE INDEX flowneer_runs_due ON flowneer_runs (flow, priority, due, id, key) WHERE due IS NOT NULL;

CREATE INDEX flowneer_runs_key ON flowneer_runs (key) WHERE key <> '';

CREATE INDEX flowneer_runs_cancelling ON flowneer_runs (status) WHERE cancelling = 1;

CREATE INDEX flowneer_runs_begun ON flowneer_runs (flow, begun) WHERE begun IS NOT NULL;

CREATE INDEX flowneer_runs_running ON flowneer_runs (flow, key) WHERE status = 'running';

-- Signals beside their runs, which they wake up.
CREATE VIEW flowneer_wakers AS
SELECT run_id, number, name, payload, sent, wake
FROM flowneer_runs AS runs
CROSS JOIN flowneer_signals AS signals ON signals.run = runs.id;

CREATE TRIGGER flowneer_wakers_sent INSTEAD OF INSERT ON flowneer_wakers
BEGIN
    INSERT INTO flowneer_signals (run, number, name, payload, sent)
    SELECT id, NEW.number, NEW.name, NEW.payload, NEW.sent FROM flowneer_runs WHERE run_id = NEW.run_id;
    UPDATE flowneer_runs SET wake = NEW.wake
    WHERE run_id = NEW.run_id AND (status = 'running' OR (status = 'waiting' AND begun IS NOT NULL));
END;

DROP VIEW flowneer_chains;

CREATE VIEW flowneer_chains AS
SELECT run_id, flow, state_type, steps, status, epoch, owner, lease_until, created, updated,
       first, runs.fork_of AS origin, tags, seal, wake, priority, key, begun,
       seq, base, versions.fork_of, step_index, path, timestamp, body, parent_digest, digest
FROM flowneer_runs AS runs
CROSS JOIN flowneer_versions AS versions ON versions.run = runs.id;

-- The first version brings its run along.
CREATE TRIGGER flowneer_chains_first INSTEAD OF INSERT ON flowneer_chains WHEN NEW.seq = NEW.first
BEGIN
    INSERT INTO flowneer_runs (id, run_id, flow, state_type, steps, status, epoch, owner, lease_until, created, updated,
                               first, fork_of, tags, seal, wake, priority, key, begun)
    VALUES (max((SELECT row FROM flowneer_schema), COALESCE((SELECT max(id) FROM flowneer_runs), 0)) + 1,
            NEW.run_id, NEW.flow, NEW.state_type, NEW.steps, NEW.status, NEW.epoch, NEW.owner, NEW.lease_until,
            NEW.created, NEW.updated, NEW.first, NEW.origin, NEW.tags, NEW.seal, NEW.wake, NEW.priority, NEW.key,
            NEW.begun);
    INSERT INTO flowneer_versions (run, seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest)
    SELECT id, NEW.seq, NEW.base, NEW.fork_of, NEW.step_index, NEW.path, NEW.timestamp, NEW.body,
           NEW.parent_digest, NEW.digest
    FROM flowneer_runs WHERE run_id = NEW.run_id;
END;

CREATE TRIGGER flowneer_chains_next INSTEAD OF INSERT ON flowneer_chains WHEN NEW.seq > NEW.first
BEGIN
    INSERT INTO flowneer_versions (run, seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest)
    SELECT id, NEW.seq, NEW.base, NEW.fork_of, NEW.step_index, NEW.path, NEW.timestamp, NEW.body,
           NEW.parent_digest, NEW.digest
    FROM flowneer_runs WHERE run_id = NEW.run_id;
END;
