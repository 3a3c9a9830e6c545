SELECT id, last, run_id, flow, state_type, steps, status, error,
       COALESCE((SELECT max(seq) FROM flowneer_versions WHERE run = runs.id), -1),
       epoch, owner, created, updated, first, fork_of, tags, seal, wake, priority, key, begun, recoveries, cancelling
FROM flowneer_runs AS runs
WHERE run_id = ?
