-- All leases of a store that closes: (owner).
UPDATE flowneer_runs
SET owner = NULL, lease_until = 0, epoch = epoch + 1,
    last = COALESCE((SELECT max(seq) FROM flowneer_versions WHERE run = id), -1)
FROM (VALUES {rows}) AS new
WHERE owner = new.column1
