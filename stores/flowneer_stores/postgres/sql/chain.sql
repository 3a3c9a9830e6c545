-- Version ($1, $2) and those before it, back to the keyframe it folds from.
SELECT run_id, seq, base, versions.fork_of, step_index, path, timestamp, body, parent_digest, digest
FROM {schema}.flowneer_runs AS runs
JOIN {schema}.flowneer_versions AS versions ON versions.run = runs.id
WHERE run_id = $1
  AND seq BETWEEN (SELECT base FROM {schema}.flowneer_versions WHERE run = runs.id AND seq = $2) AND $2
ORDER BY seq
