-- New runs, each owned by who created it. Returns those whose id was free.
INSERT INTO flowneer_runs (run_id, flow, state_type, steps, status, epoch, owner, lease_until, created, updated)
VALUES {rows}
ON CONFLICT (run_id) DO NOTHING
RETURNING run_id
