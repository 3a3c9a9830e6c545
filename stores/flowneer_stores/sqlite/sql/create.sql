-- New runs, each owned by who created it, or by nobody: (run_id, flow, state_type, steps, status, owner, lease_until,
-- created, updated, first, fork_of, tags, seal, wake, priority, key, begun). Returns those whose id was free, and their
-- epochs: above those of all purged.
INSERT INTO flowneer_runs (id, run_id, flow, state_type, steps, status, epoch, owner, lease_until, created, updated,
                           first, fork_of, tags, seal, wake, priority, key, begun)
SELECT max((SELECT row FROM flowneer_schema), COALESCE((SELECT max(id) FROM flowneer_runs), 0)) + row_number() OVER (),
       column1, column2, column3, column4, column5, (SELECT epoch FROM flowneer_schema) + 1, column6, column7, column8,
       column9, column10, column11, column12, column13, column14, column15, column16, column17
FROM (VALUES {rows})
WHERE column1 IS NOT NULL
ON CONFLICT (run_id) DO NOTHING
RETURNING run_id, epoch
