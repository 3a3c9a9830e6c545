-- After a lost answer: which runs have been taken with these tickets? (run_id, ticket).
SELECT run_id, epoch
FROM unnest($1::text[], $2::bigint[]) AS new (run_id, ticket)
JOIN {schema}.flowneer_runs AS runs USING (run_id, ticket)
