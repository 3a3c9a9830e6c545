SELECT run_id, seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest
FROM flowneer_runs AS runs
CROSS JOIN flowneer_versions AS versions ON versions.run = runs.id
WHERE runs.run_id = :run_id
ORDER BY seq
