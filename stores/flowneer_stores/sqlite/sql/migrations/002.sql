-- Messages into runs, numbered from 1 within each.
CREATE TABLE flowneer_signals (
    run INTEGER NOT NULL REFERENCES flowneer_runs (id),
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    payload BLOB NOT NULL,
    sent INTEGER NOT NULL,
    PRIMARY KEY (run, number)
) STRICT;

-- Versions beside their runs, for one statement to write to both tables.
CREATE VIEW flowneer_chains AS
SELECT run_id, flow, state_type, steps, status, epoch, owner, lease_until, created, updated,
       seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest
FROM flowneer_runs AS runs
CROSS JOIN flowneer_versions AS versions ON versions.run = runs.id;

-- The root brings its run along.
CREATE TRIGGER flowneer_chains_root INSTEAD OF INSERT ON flowneer_chains WHEN NEW.seq = 0
BEGIN
    INSERT INTO flowneer_runs (run_id, flow, state_type, steps, status, epoch, owner, lease_until, created, updated)
    VALUES (NEW.run_id, NEW.flow, NEW.state_type, NEW.steps, NEW.status, NEW.epoch, NEW.owner, NEW.lease_until,
            NEW.created, NEW.updated);
    INSERT INTO flowneer_versions (run, seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest)
    VALUES (last_insert_rowid(), NEW.seq, NEW.base, NEW.fork_of, NEW.step_index, NEW.path, NEW.timestamp, NEW.body,
            NEW.parent_digest, NEW.digest);
END;

CREATE TRIGGER flowneer_chains_next INSTEAD OF INSERT ON flowneer_chains WHEN NEW.seq > 0
BEGIN
    INSERT INTO flowneer_versions (run, seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest)
    SELECT id, NEW.seq, NEW.base, NEW.fork_of, NEW.step_index, NEW.path, NEW.timestamp, NEW.body,
           NEW.parent_digest, NEW.digest
    FROM flowneer_runs WHERE run_id = NEW.run_id;
END;
