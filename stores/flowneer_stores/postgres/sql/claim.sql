-- Own runs as they were last read: (run_id, epoch read, steps, seal, owner, length of the lease, owner known to be gone,
-- begun, cancelling, ticket). A wish to cancel that came since they were read stays. The head is kept beside the chain:
-- of an owner that dies it is known then whether it has stored anything. Returns those that were free.
WITH locked AS MATERIALIZED (
    SELECT id, new.*, (SELECT max(seq) FROM {schema}.flowneer_versions WHERE run = id) AS head
    FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bytea[], $5::text[], $6::bigint[], $7::text[], $8::bigint[],
                $9::boolean[], $10::bigint[])
        AS new (run_id, epoch, steps, seal, owner, lease, gone, begun, was_cancelling, ticket)
    JOIN {schema}.flowneer_runs AS runs
        ON runs.run_id = new.run_id
        AND runs.epoch = new.epoch
        AND (runs.owner IS NULL OR lease_until <= {now} OR runs.owner = new.gone)
    ORDER BY id
    FOR NO KEY UPDATE OF runs
)
UPDATE {schema}.flowneer_runs AS runs
SET epoch = runs.epoch + 1, steps = locked.steps, seal = locked.seal, owner = locked.owner, ticket = locked.ticket,
    lease_until = {now} + locked.lease, status = 'running', error = NULL, updated = {now},
    begun = COALESCE(runs.begun, locked.begun),
    wake = CASE WHEN cancelling AND NOT was_cancelling THEN wake END, cancelling = cancelling AND NOT was_cancelling,
    recoveries = CASE WHEN runs.owner IS NULL THEN 0 WHEN head > last THEN 1 ELSE recoveries + 1 END,
    last = COALESCE(head, -1)
FROM locked
WHERE runs.id = locked.id
RETURNING runs.run_id, runs.epoch
