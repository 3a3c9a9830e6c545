-- Own runs as they were last read: (run_id, epoch read, steps, owner, lease_until, now, owner known to be gone).
UPDATE flowneer_runs
SET epoch = epoch + 1, steps = new.column3, owner = new.column4, lease_until = new.column5,
    status = 'running', error = NULL, updated = new.column6
FROM (VALUES {rows}) AS new
WHERE run_id = new.column1
  AND epoch = new.column2
  AND (owner IS NULL OR lease_until <= new.column6 OR owner = new.column7)
RETURNING run_id, epoch
