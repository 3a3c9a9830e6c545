-- The same as append.sql, for a single version: in half the time.
INSERT INTO {schema}.flowneer_versions (run, seq, base, fork_of, step_index, path, timestamp, body, parent_digest,
                                        digest)
SELECT id, $4, $5, $6, $7, $8, $9, $10, $11, $12
FROM (
    SELECT id, first FROM {schema}.flowneer_runs WHERE run_id = $1::text AND epoch = $2::bigint FOR SHARE
) AS locked
WHERE COALESCE((SELECT max(seq) FROM {schema}.flowneer_versions WHERE run = id), first - 1) = $3::bigint
RETURNING $1, $2
