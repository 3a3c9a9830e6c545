-- New runs, each owned by who created it. An id that is taken stops it all.
INSERT INTO flowneer_runs (run_id, flow, state_type, steps, status, epoch, owner, lease_until, created, updated)
SELECT *
FROM (VALUES {rows})
WHERE column1 IS NOT NULL
