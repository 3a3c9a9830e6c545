-- The versions of a run from number first to last.
SELECT run_id, seq, base, versions.fork_of, step_index, path, timestamp, body, parent_digest, digest
FROM flowneer_runs AS runs
CROSS JOIN flowneer_versions AS versions ON versions.run = runs.id
WHERE runs.run_id = ?1 AND seq BETWEEN ?2 AND ?3
ORDER BY seq
