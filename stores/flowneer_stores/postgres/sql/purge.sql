-- Forget runs, with all that is theirs: (run_id, id, owner known to be gone). Returns those that nobody owns.
WITH schema AS MATERIALIZED (
    -- Whoever creates a run waits, and then begins above the epochs of those that are purged here.
    SELECT epoch FROM {schema}.flowneer_schema FOR UPDATE
),
locked AS MATERIALIZED (
    SELECT runs.id, runs.run_id, runs.epoch
    FROM unnest($1::text[], $2::bigint[], $3::text[]) AS new (run_id, id, gone)
    CROSS JOIN schema
    JOIN {schema}.flowneer_runs AS runs
        ON runs.id = new.id
        AND (owner IS NULL OR lease_until <= {now} OR owner = new.gone)
    ORDER BY runs.id
    FOR UPDATE OF runs
),
raised AS (
    UPDATE {schema}.flowneer_schema AS schema
    SET epoch = GREATEST(schema.epoch, purged.epoch)
    FROM (SELECT max(epoch) AS epoch FROM locked) AS purged
    WHERE purged.epoch IS NOT NULL
)
DELETE FROM {schema}.flowneer_runs AS runs
USING locked
WHERE runs.id = locked.id
RETURNING runs.run_id, runs.epoch
