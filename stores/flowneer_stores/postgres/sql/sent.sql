-- After a lost answer: which signals were stored with these tickets? (run_id, ticket).
SELECT run_id, number
FROM unnest($1::text[], $2::bigint[]) AS new (run_id, ticket)
JOIN {schema}.flowneer_runs AS runs USING (run_id)
JOIN {schema}.flowneer_signals AS signals ON signals.run = runs.id AND signals.ticket = new.ticket
