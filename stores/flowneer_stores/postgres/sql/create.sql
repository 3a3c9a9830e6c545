-- New runs, each owned by who created it, or by nobody: (the columns of a run, ticket). Returns those whose id was free.
WITH schema AS MATERIALIZED (
    -- No run is purged meanwhile.
    SELECT epoch FROM {schema}.flowneer_schema FOR KEY SHARE
)
INSERT INTO {schema}.flowneer_runs (run_id, flow, state_type, steps, status, epoch, owner, lease_until, created, updated,
                                    first, fork_of, tags, seal, wake, priority, key, begun, ticket)
SELECT new.run_id, flow, state_type, steps, status, schema.epoch + 1, owner,
       CASE WHEN owner IS NULL THEN 0 ELSE {now} + lease END, created, updated, first, fork_of, tags::jsonb, seal,
       wake, priority, key, begun, ticket
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
            $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::bytea[], $14::bigint[], $15::bigint[],
            $16::text[], $17::bigint[], $18::bigint[])
    AS new (run_id, flow, state_type, steps, status, owner, lease, created, updated, first, fork_of, tags, seal, wake,
            priority, key, begun, ticket)
CROSS JOIN schema
-- All who create runs take their ids in one order, so that no two wait for each other.
ORDER BY new.run_id COLLATE "C"
ON CONFLICT (run_id) DO NOTHING
RETURNING run_id, epoch
