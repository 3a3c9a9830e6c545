-- Version (?1, ?2) and those before it, back to the keyframe it folds from.
SELECT run_id, seq, base, versions.fork_of, step_index, path, timestamp, body, parent_digest, digest
FROM flowneer_runs AS runs
CROSS JOIN flowneer_versions AS versions ON versions.run = runs.id
WHERE runs.run_id = ?1
  AND seq BETWEEN (SELECT base FROM flowneer_versions WHERE run = runs.id AND seq = ?2) AND ?2
ORDER BY seq
