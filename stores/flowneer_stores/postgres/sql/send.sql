-- Signals for runs, of each run one, which is woken up, but not to begin: (run_id, name, payload, sent or now, ticket).
-- Returns the number that each was given.
WITH locked AS MATERIALIZED (
    SELECT id, new.*
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[])
        AS new (run_id, name, payload, sent, ticket)
    JOIN {schema}.flowneer_runs AS runs ON runs.run_id = new.run_id
    WHERE NOT EXISTS (SELECT FROM {schema}.flowneer_signals WHERE run = id AND ticket = new.ticket)
    ORDER BY id
    FOR NO KEY UPDATE OF runs
),
counted AS (
    UPDATE {schema}.flowneer_runs AS runs
    SET signals = signals + 1,
        wake = CASE WHEN status = 'running' OR (status = 'waiting' AND begun IS NOT NULL) THEN {now} ELSE wake END
    FROM locked
    WHERE runs.id = locked.id
    RETURNING runs.id, runs.run_id, signals
),
stored AS (
    INSERT INTO {schema}.flowneer_signals (run, number, name, payload, sent, ticket)
    SELECT id, signals, name, payload, COALESCE(sent, {now}), ticket
    FROM counted
    JOIN locked USING (id)
)
SELECT run_id, signals FROM counted
