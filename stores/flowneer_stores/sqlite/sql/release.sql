-- How owned runs stand, and their leases back: (run_id, epoch, status, error, seal, now, wake). The head is kept
-- beside the chain, so that a tail which goes missing is missed. What came since the claim has set `wake` already.
UPDATE flowneer_runs
SET status = new.column3,
    wake = CASE new.column3 WHEN 'waiting' THEN COALESCE(wake, new.column7) WHEN 'running' THEN wake END,
    cancelling = cancelling AND new.column3 IN ('running', 'waiting'),
    error = new.column4, seal = new.column5, updated = new.column6,
    owner = NULL, lease_until = 0, epoch = epoch + 1,
    last = COALESCE((SELECT max(seq) FROM flowneer_versions WHERE run = id), -1)
FROM (VALUES {rows}) AS new
WHERE run_id = new.column1 AND epoch = new.column2
