-- The signals of a run, or one row of NULL where it has none.
SELECT run_id, number, name, payload, sent
FROM {schema}.flowneer_runs AS runs
LEFT JOIN {schema}.flowneer_signals AS signals ON signals.run = runs.id
WHERE run_id = $1
ORDER BY number
