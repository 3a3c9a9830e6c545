-- All leases of a store that closes: (owner).
WITH locked AS MATERIALIZED (
    SELECT id
    FROM unnest($1::text[]) AS new (owner)
    JOIN {schema}.flowneer_runs AS runs ON runs.owner = new.owner
    ORDER BY id
    FOR NO KEY UPDATE OF runs
)
UPDATE {schema}.flowneer_runs AS runs
SET owner = NULL, lease_until = 0, epoch = runs.epoch + 1,
    last = COALESCE((SELECT max(seq) FROM {schema}.flowneer_versions WHERE run = runs.id), -1)
FROM locked
WHERE runs.id = locked.id
RETURNING runs.run_id, runs.epoch
