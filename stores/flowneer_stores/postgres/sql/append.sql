-- Versions onto the heads of owned runs: (run_id, epoch, head, then the columns of a version). Returns the runs that
-- have this epoch and this head; of others, nothing is stored.
WITH new AS MATERIALIZED (
    SELECT *
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[],
                $8::text[], $9::bigint[], $10::bytea[], $11::bytea[], $12::bytea[])
        AS new (run_id, epoch, head, seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest)
),
locked AS MATERIALIZED (
    SELECT id, runs.run_id, runs.epoch, first, head
    FROM new
    JOIN {schema}.flowneer_runs AS runs ON runs.run_id = new.run_id AND runs.epoch = new.epoch
    WHERE seq = head + 1
    -- Nobody takes the run over until this is committed. All lock runs in one order, so that no two wait for each other.
    ORDER BY id
    FOR SHARE OF runs
),
fitting AS MATERIALIZED (
    SELECT id, run_id, epoch
    FROM locked
    WHERE head = COALESCE((SELECT max(seq) FROM {schema}.flowneer_versions WHERE run = id), first - 1)
),
stored AS (
    INSERT INTO {schema}.flowneer_versions (run, seq, base, fork_of, step_index, path, timestamp, body, parent_digest,
                                            digest)
    SELECT id, seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest
    FROM fitting
    JOIN new USING (run_id)
    ORDER BY id, seq
)
SELECT run_id, epoch FROM fitting
