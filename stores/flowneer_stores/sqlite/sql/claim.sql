-- Own runs as they were last read: (run_id, epoch read, steps, seal, owner, lease_until, now, owner known to be gone,
-- begun, cancelling). A wish to cancel that came since they were read stays. The head is kept beside the chain: of an
-- owner that dies it is known then whether it has stored anything.
UPDATE flowneer_runs
SET epoch = epoch + 1, steps = new.column3, seal = new.column4, owner = new.column5, lease_until = new.column6,
    status = 'running', error = NULL, updated = new.column7, begun = COALESCE(begun, new.column9),
    wake = CASE WHEN cancelling > new.column10 THEN wake END, cancelling = cancelling > new.column10,
    recoveries = CASE
        WHEN owner IS NULL THEN 0
        WHEN (SELECT max(seq) FROM flowneer_versions WHERE run = id) > last THEN 1
        ELSE recoveries + 1
    END,
    last = COALESCE((SELECT max(seq) FROM flowneer_versions WHERE run = id), -1)
FROM (VALUES {rows}) AS new
WHERE run_id = new.column1
  AND epoch = new.column2
  AND (owner IS NULL OR lease_until <= new.column7 OR owner = new.column8)
RETURNING run_id, epoch
