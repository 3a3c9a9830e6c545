BEGIN TRANSACTION;
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
, first INTEGER NOT NULL DEFAULT 0, fork_of TEXT, tags TEXT NOT NULL DEFAULT '{}', seal BLOB NOT NULL DEFAULT x'') STRICT;
INSERT INTO "flowneer_runs" VALUES(1,'done','greeting','dict','["greet","count"]','completed',NULL,2,NULL,0,2,1795455659943,1795455659965,0,NULL,'{"team":"a"}',X'');
INSERT INTO "flowneer_runs" VALUES(2,'fork','greeting','dict','["greet","count"]','completed',NULL,2,NULL,0,1,1795455659968,1795455659977,0,'done@1','{}',X'');
INSERT INTO "flowneer_runs" VALUES(3,'failed','greeting','dict','["greet","count"]','failed','step ''count'' of run ''failed'' failed with ValueError',2,NULL,0,1,1795455659982,1795455659987,0,NULL,'{"team":"b"}',X'');
INSERT INTO "flowneer_runs" VALUES(4,'waiting','waiting','dict','["greet","go","count"]','waiting',NULL,2,NULL,0,2,1795455659989,1795455659997,0,NULL,'{}',X'');
INSERT INTO "flowneer_runs" VALUES(5,'left','greeting','dict','["greet","count"]','running',NULL,1,'gone:1:1:00000000',1700000000000,-1,1795455659943,1795455659943,0,NULL,'{}',X'');
CREATE TABLE flowneer_schema (version INTEGER NOT NULL, epoch INTEGER NOT NULL DEFAULT 0, row INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO "flowneer_schema" VALUES(3,8,9);
CREATE TABLE flowneer_signals (
    run INTEGER NOT NULL REFERENCES flowneer_runs (id),
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    payload BLOB NOT NULL,
    sent INTEGER NOT NULL,
    PRIMARY KEY (run, number)
) STRICT;
INSERT INTO "flowneer_signals" VALUES(4,1,'go',X'37',1795455659998);
CREATE TABLE flowneer_tags (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    run INTEGER NOT NULL REFERENCES flowneer_runs (id),
    PRIMARY KEY (name, value, run)
) STRICT, WITHOUT ROWID;
INSERT INTO "flowneer_tags" VALUES('team','a',1);
INSERT INTO "flowneer_tags" VALUES('team','b',3);
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
INSERT INTO "flowneer_versions" VALUES(1,0,0,NULL,-1,'',1795455659943,X'7B22736574223A7B2274657874223A372C226E223A317D7D0A2268656C6C6F2230',X'',X'9DFD384B85484FEDCFF4618BE07E021F');
INSERT INTO "flowneer_versions" VALUES(1,1,0,NULL,0,'greet',1795455659948,X'7B22736574223A7B2274657874223A31357D7D0A2268656C6C6F2C2077C3B6726C6422',X'',X'BC4B739441374004C1133A7373105D77');
INSERT INTO "flowneer_versions" VALUES(1,2,0,NULL,1,'count',1795455659964,X'7B22736574223A7B226E223A317D7D0A31',X'',X'309EE6DDB57E902C5236F6722E052540');
INSERT INTO "flowneer_versions" VALUES(2,0,0,'done@1',0,'greet',1795455659968,X'7B22736574223A7B2274657874223A31352C226E223A317D7D0A2268656C6C6F2C2077C3B6726C642230',X'',X'A885221864CF799F7B4EC71CA32716A6');
INSERT INTO "flowneer_versions" VALUES(2,1,0,NULL,1,'count',1795455659973,X'7B22736574223A7B226E223A317D7D0A31',X'',X'5F479071CDF787C72B9565E63809B83A');
INSERT INTO "flowneer_versions" VALUES(3,0,0,NULL,-1,'',1795455659982,X'7B22736574223A7B2274657874223A372C226E223A317D7D0A2268656C6C6F2230',X'',X'EFBF000B80DCCE938F5CD6D3CC7587FF');
INSERT INTO "flowneer_versions" VALUES(3,1,0,NULL,0,'greet',1795455659985,X'7B22736574223A7B2274657874223A31357D7D0A2268656C6C6F2C2077C3B6726C6422',X'',X'A0EF744A1D083069C3B31081EFF4DE5E');
INSERT INTO "flowneer_versions" VALUES(4,0,0,NULL,-1,'',1795455659989,X'7B22736574223A7B2274657874223A372C226E223A317D7D0A2268656C6C6F2230',X'',X'F209D1E77A9A5B40CDD9305D51B72C71');
INSERT INTO "flowneer_versions" VALUES(4,1,0,NULL,0,'greet',1795455659993,X'7B22736574223A7B2274657874223A31357D7D0A2268656C6C6F2C2077C3B6726C6422',X'',X'045F128882182F1236A84D25D6A72B8E');
INSERT INTO "flowneer_versions" VALUES(4,2,0,NULL,0,'go/@wait',1795455659995,X'7B22736574223A7B225C7530303030676F5C7530303030756E74696C223A342C225C7530303030676F5C75303030306C696D6974223A347D7D0A6E756C6C6E756C6C',X'',X'773AE682FB6F500509B31FA07BE38E56');
INSERT INTO "flowneer_versions" VALUES(5,0,0,NULL,-1,'',1000000000000,X'7B22736574223A7B226E223A317D7D0A30',X'',X'6FAE27536FC390964DE1C587B54B3EA0');
CREATE INDEX flowneer_runs_status ON flowneer_runs (status);
CREATE INDEX flowneer_runs_flow ON flowneer_runs (flow);
CREATE INDEX flowneer_runs_owner ON flowneer_runs (owner) WHERE owner IS NOT NULL;
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
CREATE VIEW flowneer_chains AS
SELECT run_id, flow, state_type, steps, status, epoch, owner, lease_until, created, updated,
       first, runs.fork_of AS origin, tags, seal,
       seq, base, versions.fork_of, step_index, path, timestamp, body, parent_digest, digest
FROM flowneer_runs AS runs
CROSS JOIN flowneer_versions AS versions ON versions.run = runs.id;
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
COMMIT;
