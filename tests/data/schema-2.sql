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
) STRICT;
INSERT INTO "flowneer_runs" VALUES(1,'done','greeting','dict','["greet","count"]','completed',NULL,2,NULL,0,2,1795444904280,1700000000000);
INSERT INTO "flowneer_runs" VALUES(2,'fork','greeting','dict','["greet","count"]','completed',NULL,2,NULL,0,1,1795444904284,1700000000000);
INSERT INTO "flowneer_runs" VALUES(3,'failed','greeting','dict','["greet","count"]','failed','step ''count'' of run ''failed'' failed with ValueError',2,NULL,0,1,1795444904286,1700000000000);
INSERT INTO "flowneer_runs" VALUES(4,'waiting','waiting','dict','["greet","go","count"]','waiting',NULL,2,NULL,0,2,1795444904288,1700000000000);
CREATE TABLE flowneer_schema (version INTEGER NOT NULL) STRICT;
INSERT INTO "flowneer_schema" VALUES(2);
CREATE TABLE flowneer_signals (
    run INTEGER NOT NULL REFERENCES flowneer_runs (id),
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    payload BLOB NOT NULL,
    sent INTEGER NOT NULL,
    PRIMARY KEY (run, number)
) STRICT;
INSERT INTO "flowneer_signals" VALUES(4,1,'go',X'37',1700000000000);
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
INSERT INTO "flowneer_versions" VALUES(1,0,0,NULL,-1,'',1795444904280,X'7B22736574223A7B2274657874223A372C226E223A317D7D0A2268656C6C6F2230',X'',X'22A18D4910971CA9100A267B1B20D851');
INSERT INTO "flowneer_versions" VALUES(1,1,0,NULL,0,'greet',1795444904281,X'7B22736574223A7B2274657874223A31357D7D0A2268656C6C6F2C2077C3B6726C6422',X'',X'45A011FFFE08DDB6751E3F654C882FAD');
INSERT INTO "flowneer_versions" VALUES(1,2,0,NULL,1,'count',1795444904282,X'7B22736574223A7B226E223A317D7D0A31',X'',X'0979B48F15BB974F690EB99D629C18EE');
INSERT INTO "flowneer_versions" VALUES(2,0,0,'done@1',0,'greet',1795444904284,X'7B22736574223A7B2274657874223A31352C226E223A317D7D0A2268656C6C6F2C2077C3B6726C642230',X'',X'F9445D09F618D87BDB4F1B5C59DDDCD6');
INSERT INTO "flowneer_versions" VALUES(2,1,0,NULL,1,'count',1795444904285,X'7B22736574223A7B226E223A317D7D0A31',X'',X'3DACD8B3488A1CA2A3D9395A9C629B6B');
INSERT INTO "flowneer_versions" VALUES(3,0,0,NULL,-1,'',1795444904286,X'7B22736574223A7B2274657874223A372C226E223A317D7D0A2268656C6C6F2230',X'',X'7FE75837BB3C036D5097E63A36390841');
INSERT INTO "flowneer_versions" VALUES(3,1,0,NULL,0,'greet',1795444904287,X'7B22736574223A7B2274657874223A31357D7D0A2268656C6C6F2C2077C3B6726C6422',X'',X'2D46074C28496E437DB76571E2643220');
INSERT INTO "flowneer_versions" VALUES(4,0,0,NULL,-1,'',1795444904288,X'7B22736574223A7B2274657874223A372C226E223A317D7D0A2268656C6C6F2230',X'',X'84E840608A86967EF2FEC14DF510B5DD');
INSERT INTO "flowneer_versions" VALUES(4,1,0,NULL,0,'greet',1795444904289,X'7B22736574223A7B2274657874223A31357D7D0A2268656C6C6F2C2077C3B6726C6422',X'',X'23E517A2347609467DDFE683CD84B1FC');
INSERT INTO "flowneer_versions" VALUES(4,2,0,NULL,0,'go/@wait',1795444904289,X'7B22736574223A7B225C7530303030676F5C7530303030756E74696C223A342C225C7530303030676F5C75303030306C696D6974223A347D7D0A6E756C6C6E756C6C',X'',X'990106B74B4408935B7A1BB14A8C9BBF');
CREATE VIEW flowneer_chains AS
SELECT run_id, flow, state_type, steps, status, epoch, owner, lease_until, created, updated,
       seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest
FROM flowneer_runs AS runs
CROSS JOIN flowneer_versions AS versions ON versions.run = runs.id;
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
COMMIT;
