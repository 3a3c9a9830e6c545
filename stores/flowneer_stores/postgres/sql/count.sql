SELECT status, count(*)
FROM {schema}.flowneer_runs
WHERE {conditions}
GROUP BY status
