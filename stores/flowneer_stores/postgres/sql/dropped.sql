-- After a lost answer: of which runs is the first version another one by now? (run_id, first as it was read).
SELECT run_id, first
FROM unnest($1::text[], $2::bigint[]) AS new (run_id, was)
JOIN {schema}.flowneer_runs AS runs USING (run_id)
WHERE first <> was
