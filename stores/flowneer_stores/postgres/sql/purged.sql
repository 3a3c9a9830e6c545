-- After a lost answer: which of these rows are gone? (run_id, id).
SELECT new.run_id, new.id
FROM unnest($1::text[], $2::bigint[]) AS new (run_id, id)
WHERE NOT EXISTS (SELECT FROM {schema}.flowneer_runs AS runs WHERE runs.id = new.id)
