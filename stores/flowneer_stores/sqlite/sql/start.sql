-- New runs with their first versions, on each row both: the columns of create.sql, then those of a version.
-- All or none of a run's rows are stored. Returns the runs whose id was free.
INSERT INTO flowneer_chains
SELECT *
FROM (VALUES {rows})
WHERE column1 IS NOT NULL AND NOT EXISTS (SELECT 1 FROM flowneer_runs WHERE run_id = column1)
RETURNING run_id, epoch
