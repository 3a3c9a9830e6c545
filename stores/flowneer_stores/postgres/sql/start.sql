-- New runs with their first versions, on each row both: the columns of create.sql, then those of a version.
-- All or none of a run's rows are stored. Returns the runs whose id was free.
WITH schema AS MATERIALIZED (
    -- No run is purged meanwhile.
    SELECT epoch FROM {schema}.flowneer_schema FOR KEY SHARE
),
new AS MATERIALIZED (
    SELECT *
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
                $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::bytea[], $14::bigint[],
                $15::bigint[], $16::text[], $17::bigint[], $18::bigint[],
                $19::bigint[], $20::bigint[], $21::text[], $22::bigint[], $23::text[], $24::bigint[], $25::bytea[],
                $26::bytea[], $27::bytea[])
        AS new (run_id, flow, state_type, steps, status, owner, lease, created, updated, first, origin, tags, seal,
                wake, priority, key, begun, ticket, seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest)
),
born AS (
    INSERT INTO {schema}.flowneer_runs (run_id, flow, state_type, steps, status, epoch, owner, lease_until, created,
                                        updated, first, fork_of, tags, seal, wake, priority, key, begun,
                                        ticket)
    SELECT new.run_id, flow, state_type, steps, status, schema.epoch + 1, owner,
           CASE WHEN owner IS NULL THEN 0 ELSE {now} + lease END, created, updated, first, origin, tags::jsonb, seal,
           wake, priority, key, begun, ticket
    FROM new
    CROSS JOIN schema
    WHERE seq = first
    -- All who create runs take their ids in one order, so that no two wait for each other.
    ORDER BY new.run_id COLLATE "C"
    ON CONFLICT (run_id) DO NOTHING
    RETURNING id, run_id, epoch
),
stored AS (
    INSERT INTO {schema}.flowneer_versions (run, seq, base, fork_of, step_index, path, timestamp, body, parent_digest,
                                            digest)
    SELECT id, seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest
    FROM born
    JOIN new USING (run_id)
)
SELECT run_id, epoch FROM born
