-- Version (run_id, seq) and those before it, back to the keyframe it folds from.
SELECT run_id, seq, base, versions.fork_of, step_index, path, timestamp, body, parent_digest, digest
FROM flowneer_runs AS runs
CROSS JOIN flowneer_versions AS versions ON versions.run = runs.id
WHERE runs.run_id = :run_id
  AND seq BETWEEN (SELECT base FROM flowneer_versions WHERE run = runs.id AND seq = :seq) AND :seq
ORDER BY seq
