-- How owned runs stand, and their leases back: (run_id, epoch, status, error, seal, wake). The head is kept beside the
-- chain, so that a tail which goes missing is missed. What came since the claim has set `wake` already.
WITH locked AS MATERIALIZED (
    SELECT id, new.*
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bytea[], $6::bigint[])
        AS new (run_id, epoch, status, error, seal, wake)
    JOIN {schema}.flowneer_runs AS runs ON runs.run_id = new.run_id AND runs.epoch = new.epoch
    ORDER BY id
    FOR NO KEY UPDATE OF runs
)
UPDATE {schema}.flowneer_runs AS runs
SET status = locked.status,
    wake = CASE locked.status WHEN 'waiting' THEN COALESCE(runs.wake, locked.wake) WHEN 'running' THEN runs.wake END,
    cancelling = cancelling AND locked.status IN ('running', 'waiting'),
    error = locked.error, seal = locked.seal, updated = {now}, owner = NULL, lease_until = 0,
    epoch = runs.epoch + 1,
    last = COALESCE((SELECT max(seq) FROM {schema}.flowneer_versions WHERE run = runs.id), -1)
FROM locked
WHERE runs.id = locked.id
RETURNING runs.run_id, runs.epoch
