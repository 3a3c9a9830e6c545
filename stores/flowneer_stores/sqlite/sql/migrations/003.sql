-- Runs are found by status, flow and tags; versions at the front of a chain may be dropped, and whole runs purged.
ALTER TABLE flowneer_runs ADD COLUMN first INTEGER NOT NULL DEFAULT 0;

ALTER TABLE flowneer_runs ADD COLUMN fork_of TEXT;

ALTER TABLE flowneer_runs ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';

ALTER TABLE flowneer_runs ADD COLUMN seal BLOB NOT NULL DEFAULT x'';

UPDATE flowneer_runs SET fork_of = (SELECT fork_of FROM flowneer_versions WHERE run = id AND seq = 0);

-- The highest epoch of any run that was purged: no lease of it is good for a later run of the same id. And the highest
-- number of its row: later ones are newer.
ALTER TABLE flowneer_schema ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;

ALTER TABLE flowneer_schema ADD COLUMN row INTEGER NOT NULL DEFAULT 0;

CREATE INDEX flowneer_runs_status ON flowneer_runs (status);

CREATE INDEX flowneer_runs_flow ON flowneer_runs (flow);

CREATE INDEX flowneer_runs_owner ON flowneer_runs (owner) WHERE owner IS NOT NULL;

CREATE TABLE flowneer_tags (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    run INTEGER NOT NULL REFERENCES flowneer_runs (id),
    PRIMARY KEY (name, value, run)
) STRICT, WITHOUT ROWID;

CREATE INDEX flowneer_tags_run ON flowneer_tags (run);

CREATE TRIGGER flowneer_runs_tagged AFTER INSERT ON flowneer_runs WHEN NEW.tags <> '{}'
BEGIN
    INSERT INTO flowneer_tags (name, value, run) SELECT key, value, NEW.id FROM json_each(NEW.tags);
END;

CREATE TRIGGER flowneer_runs_pruned AFTER UPDATE OF first ON flowneer_runs WHEN NEW.first > OLD.first
BEGIN
    DELETE FROM flowneer_versions WHERE run = NEW.id AND seq < NEW.first;
END;

CREATE TRIGGER flowneer_runs_purged BEFORE DELETE ON flowneer_runs
BEGIN
    DELETE FROM flowneer_versions WHERE run = OLD.id;
    DELETE FROM flowneer_signals WHERE run = OLD.id;
    DELETE FROM flowneer_tags WHERE run = OLD.id;
    UPDATE flowneer_schema SET epoch = max(epoch, OLD.epoch), row = max(row, OLD.id);
END;

DROP VIEW flowneer_chains;

CREATE VIEW flowneer_chains AS
SELECT run_id, flow, state_type, steps, status, epoch, owner, lease_until, created, updated,
       first, runs.fork_of AS origin, tags, seal,
       seq, base, versions.fork_of, step_index, path, timestamp, body, parent_digest, digest
FROM flowneer_runs AS runs
CROSS JOIN flowneer_versions AS versions ON versions.run = runs.id;

-- The first version brings its run along.
CREATE TRIGGER flowneer_chains_first INSTEAD OF INSERT ON flowneer_chains WHEN NEW.seq = NEW.first
BEGIN
    INSERT INTO flowneer_runs (id, run_id, flow, state_type, steps, status, epoch, owner, lease_until, created, updated,
                               first, fork_of, tags, seal)
    VALUES (max((SELECT row FROM flowneer_schema), COALESCE((SELECT max(id) FROM flowneer_runs), 0)) + 1,
            NEW.run_id, NEW.flow, NEW.state_type, NEW.steps, NEW.status, NEW.epoch, NEW.owner, NEW.lease_until,
            NEW.created, NEW.updated, NEW.first, NEW.origin, NEW.tags, NEW.seal);
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
