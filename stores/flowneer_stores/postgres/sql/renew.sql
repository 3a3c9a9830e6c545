-- A longer time for leases that are still held: (run_id, epoch, length of the lease).
WITH locked AS MATERIALIZED (
    SELECT id, lease
    FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS new (run_id, epoch, lease)
    JOIN {schema}.flowneer_runs AS runs ON runs.run_id = new.run_id AND runs.epoch = new.epoch
    ORDER BY id
    FOR NO KEY UPDATE OF runs
)
UPDATE {schema}.flowneer_runs AS runs
SET lease_until = {now} + locked.lease
FROM locked
WHERE runs.id = locked.id
RETURNING runs.run_id, runs.epoch
