-- A longer time for leases that are still held: (run_id, epoch, lease_until).
UPDATE flowneer_runs
SET lease_until = new.column3
FROM (VALUES {rows}) AS new
WHERE run_id = new.column1 AND epoch = new.column2
RETURNING run_id, epoch
