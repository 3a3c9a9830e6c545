SELECT run_id, seq, base, versions.fork_of, step_index, path, timestamp, body, parent_digest, digest
FROM {schema}.flowneer_runs AS runs
JOIN {schema}.flowneer_versions AS versions ON versions.run = runs.id
WHERE run_id = $1 AND seq BETWEEN $2 AND $3
ORDER BY seq
