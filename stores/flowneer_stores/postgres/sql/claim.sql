-- Own runs as they were last read: (run_id, epoch read, steps, seal, owner, length of the lease, owner known to be gone,
-- ticket). Returns those that were free.
WITH locked AS MATERIALIZED (
    SELECT id, new.*
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[], $5::text[], $6::bigint[], $7::text[], $8::bigint[])
        AS new (run_id, epoch, steps, seal, owner, lease, gone, ticket)
    JOIN {schema}.flowneer_runs AS runs
        ON runs.run_id = new.run_id
        AND runs.epoch = new.epoch
        AND (runs.owner IS NULL OR lease_until <= {now} OR runs.owner = new.gone)
    ORDER BY id
    FOR NO KEY UPDATE OF runs
)
UPDATE {schema}.flowneer_runs AS runs
SET epoch = runs.epoch + 1, steps = locked.steps, seal = locked.seal, owner = locked.owner, ticket = locked.ticket,
    lease_until = {now} + locked.lease, status = 'running', error = NULL, updated = {now}
FROM locked
WHERE runs.id = locked.id
RETURNING runs.run_id, runs.epoch
