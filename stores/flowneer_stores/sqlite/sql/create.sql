-- New runs, each owned by who created it. Returns those whose id was free.
INSERT INTO flowneer_runs (run_id, flow, state_type, steps, status, epoch, owner, lease_until, created, updated)
SELECT *
FROM (VALUES {rows})
WHERE column1 IS NOT NULL
ON CONFLICT (run_id) DO NOTHING
RETURNING run_id, epoch
