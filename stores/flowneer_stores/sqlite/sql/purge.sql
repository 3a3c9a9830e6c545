-- Forget runs as they were last read, with all that is theirs: (run_id, epoch read, now, owner known to be gone).
DELETE FROM flowneer_runs
WHERE id IN (
    SELECT id
    FROM (VALUES {rows}) AS new
    CROSS JOIN flowneer_runs ON run_id = new.column1
    WHERE epoch = new.column2 AND (owner IS NULL OR lease_until <= new.column3 OR owner = new.column4)
)
RETURNING run_id, epoch
