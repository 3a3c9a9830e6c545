-- Runs that fit, the newest first.
SELECT id, run_id, flow, state_type, steps, status, error,
       COALESCE((SELECT max(seq) FROM {schema}.flowneer_versions WHERE run = id), first - 1),
       epoch, owner, created, updated, first, fork_of, tags::text, seal, wake, priority, key, begun, recoveries, cancelling
FROM {schema}.flowneer_runs
WHERE {conditions}
ORDER BY id DESC
LIMIT $1
