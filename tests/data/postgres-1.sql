CREATE SCHEMA {schema};

CREATE FUNCTION {schema}.flowneer_forget() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    DELETE FROM {schema}.flowneer_versions WHERE run = OLD.id;
    DELETE FROM {schema}.flowneer_signals WHERE run = OLD.id;
    RETURN NULL;
END
$$;

CREATE TABLE {schema}.flowneer_runs (
    id bigint NOT NULL,
    run_id text NOT NULL COLLATE pg_catalog."C",
    flow text NOT NULL COLLATE pg_catalog."C",
    state_type text NOT NULL,
    steps text NOT NULL,
    status text NOT NULL COLLATE pg_catalog."C",
    error text,
    epoch bigint NOT NULL,
    owner text COLLATE pg_catalog."C",
    ticket bigint NOT NULL,
    lease_until bigint NOT NULL,
    last bigint DEFAULT '-1'::integer NOT NULL,
    created bigint NOT NULL,
    updated bigint NOT NULL,
    first bigint NOT NULL,
    fork_of text,
    tags jsonb NOT NULL,
    seal bytea NOT NULL,
    signals bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='66');

ALTER TABLE {schema}.flowneer_runs ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME {schema}.flowneer_runs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE {schema}.flowneer_schema (
    version bigint NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL
);

CREATE TABLE {schema}.flowneer_signals (
    run bigint NOT NULL,
    number bigint NOT NULL,
    name text NOT NULL,
    payload bytea NOT NULL,
    sent bigint NOT NULL,
    ticket bigint NOT NULL
);

CREATE TABLE {schema}.flowneer_versions (
    run bigint NOT NULL,
    seq bigint NOT NULL,
    base bigint NOT NULL,
    fork_of text,
    step_index bigint NOT NULL,
    path text NOT NULL,
    "timestamp" bigint NOT NULL,
    body bytea NOT NULL,
    parent_digest bytea NOT NULL,
    digest bytea NOT NULL
);

INSERT INTO {schema}.flowneer_runs OVERRIDING SYSTEM VALUE VALUES (1, 'done', 'greeting', 'dict', '["greet","count"]', 'completed', NULL, 2, NULL, 938998578495976397, 0, 2, 1795455663523, 1795455663560, 0, NULL, '{"team": "a"}', '\x', 0);
INSERT INTO {schema}.flowneer_runs OVERRIDING SYSTEM VALUE VALUES (2, 'fork', 'greeting', 'dict', '["greet","count"]', 'completed', NULL, 2, NULL, 8891227805571036394, 0, 1, 1795455663583, 1795455663588, 0, 'done@1', '{}', '\x', 0);
INSERT INTO {schema}.flowneer_runs OVERRIDING SYSTEM VALUE VALUES (3, 'failed', 'greeting', 'dict', '["greet","count"]', 'failed', 'step ''count'' of run ''failed'' failed with ValueError', 2, NULL, 2970655238714086740, 0, 1, 1795455663593, 1795455663597, 0, NULL, '{"team": "b"}', '\x', 0);
INSERT INTO {schema}.flowneer_runs OVERRIDING SYSTEM VALUE VALUES (4, 'waiting', 'waiting', 'dict', '["greet","go","count"]', 'waiting', NULL, 2, NULL, 4635522482091603164, 0, 2, 1795455663598, 1795455663606, 0, NULL, '{}', '\x', 1);
INSERT INTO {schema}.flowneer_runs OVERRIDING SYSTEM VALUE VALUES (5, 'left', 'greeting', 'dict', '["greet","count"]', 'running', NULL, 1, 'gone:1:1:00000000', 5080298192066004038, 1700000000000, -1, 1795455663523, 1795455663523, 0, NULL, '{}', '\x', 0);

INSERT INTO {schema}.flowneer_schema VALUES (1, 8);

INSERT INTO {schema}.flowneer_signals VALUES (4, 1, 'go', '\x37', 1795455663610, 5349164401164601769);

INSERT INTO {schema}.flowneer_versions VALUES (1, 0, 0, NULL, -1, '', 1795455663523, '\x7b22736574223a7b2274657874223a372c226e223a317d7d0a2268656c6c6f2230', '\x', '\xca70e993be94be03e1544a8b4e584b73');
INSERT INTO {schema}.flowneer_versions VALUES (1, 1, 0, NULL, 0, 'greet', 1795455663555, '\x7b22736574223a7b2274657874223a31357d7d0a2268656c6c6f2c2077c3b6726c6422', '\x', '\x8eb15d7ec3c191bd52e84106bc37d0ee');
INSERT INTO {schema}.flowneer_versions VALUES (1, 2, 0, NULL, 1, 'count', 1795455663557, '\x7b22736574223a7b226e223a317d7d0a31', '\x', '\x38c165cf34473df9c97ec50890aa72c9');
INSERT INTO {schema}.flowneer_versions VALUES (2, 0, 0, 'done@1', 0, 'greet', 1795455663583, '\x7b22736574223a7b2274657874223a31352c226e223a317d7d0a2268656c6c6f2c2077c3b6726c642230', '\x', '\xacc8aef06b78a1545bcd9fdac60dbf8c');
INSERT INTO {schema}.flowneer_versions VALUES (2, 1, 0, NULL, 1, 'count', 1795455663587, '\x7b22736574223a7b226e223a317d7d0a31', '\x', '\xb6f9c0d5eb0985be987c85fe6341428a');
INSERT INTO {schema}.flowneer_versions VALUES (3, 0, 0, NULL, -1, '', 1795455663593, '\x7b22736574223a7b2274657874223a372c226e223a317d7d0a2268656c6c6f2230', '\x', '\x8b6ad8f90a657ed9fb98812b3fc06f1f');
INSERT INTO {schema}.flowneer_versions VALUES (3, 1, 0, NULL, 0, 'greet', 1795455663596, '\x7b22736574223a7b2274657874223a31357d7d0a2268656c6c6f2c2077c3b6726c6422', '\x', '\x19b0de12b39664aa44c640c3e1fd8f8a');
INSERT INTO {schema}.flowneer_versions VALUES (4, 0, 0, NULL, -1, '', 1795455663598, '\x7b22736574223a7b2274657874223a372c226e223a317d7d0a2268656c6c6f2230', '\x', '\x974f696251c47d1c3a43005e499b947c');
INSERT INTO {schema}.flowneer_versions VALUES (4, 1, 0, NULL, 0, 'greet', 1795455663601, '\x7b22736574223a7b2274657874223a31357d7d0a2268656c6c6f2c2077c3b6726c6422', '\x', '\xd17be8acdb62a453ca48eefcdc68d7de');
INSERT INTO {schema}.flowneer_versions VALUES (4, 2, 0, NULL, 0, 'go/@wait', 1795455663601, '\x7b22736574223a7b225c7530303030676f5c7530303030756e74696c223a342c225c7530303030676f5c75303030306c696d6974223a347d7d0a6e756c6c6e756c6c', '\x', '\x129cb432e87c0255d432b99a531b9261');
INSERT INTO {schema}.flowneer_versions VALUES (5, 0, 0, NULL, -1, '', 1000000000000, '\x7b22736574223a7b226e223a317d7d0a30', '\x', '\x6fae27536fc390964de1c587b54b3ea0');

SELECT pg_catalog.setval('{schema}.flowneer_runs_id_seq', 9, true);

ALTER TABLE ONLY {schema}.flowneer_runs
    ADD CONSTRAINT flowneer_runs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY {schema}.flowneer_runs
    ADD CONSTRAINT flowneer_runs_run_id_key UNIQUE (run_id);

ALTER TABLE ONLY {schema}.flowneer_signals
    ADD CONSTRAINT flowneer_signals_pkey PRIMARY KEY (run, number);

ALTER TABLE ONLY {schema}.flowneer_signals
    ADD CONSTRAINT flowneer_signals_run_ticket_key UNIQUE (run, ticket);

ALTER TABLE ONLY {schema}.flowneer_versions
    ADD CONSTRAINT flowneer_versions_pkey PRIMARY KEY (run, seq);

CREATE INDEX flowneer_runs_flow ON {schema}.flowneer_runs USING btree (flow);

CREATE INDEX flowneer_runs_owner ON {schema}.flowneer_runs USING btree (owner) WHERE (owner IS NOT NULL);

CREATE INDEX flowneer_runs_status ON {schema}.flowneer_runs USING btree (status);

CREATE INDEX flowneer_runs_tags ON {schema}.flowneer_runs USING gin (tags jsonb_path_ops);

CREATE TRIGGER flowneer_runs_purged AFTER DELETE ON {schema}.flowneer_runs FOR EACH ROW EXECUTE FUNCTION {schema}.flowneer_forget();
