SELECT status, count(*)
FROM flowneer_runs AS runs
WHERE {conditions}
GROUP BY status
