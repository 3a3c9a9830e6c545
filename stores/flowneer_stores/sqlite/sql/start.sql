-- New runs with their first versions, on each row both: the columns of create.sql, then those of a version.
-- All or none of a run's rows are stored. Returns the runs whose id was free, and their epochs.
INSERT INTO flowneer_chains
SELECT column1, column2, column3, column4, column5, (SELECT epoch FROM flowneer_schema) + 1, column6, column7, column8,
       column9, column10, column11, column12, column13,
       column14, column15, column16, column17,
       column18, column19, column20, column21, column22, column23, column24, column25, column26
FROM (VALUES {rows})
WHERE column1 IS NOT NULL AND NOT EXISTS (SELECT 1 FROM flowneer_runs WHERE run_id = column1)
RETURNING run_id, epoch
