SELECT id, last, run_id, flow, state_type, steps, status, error,
       COALESCE((SELECT max(seq) FROM {schema}.flowneer_versions WHERE run = id), first - 1),
       epoch, owner, created, updated, first, fork_of, tags::text, seal, wake, priority, key, begun, recoveries, cancelling
FROM {schema}.flowneer_runs
WHERE run_id = $1
