-- Forget runs, with all that is theirs: (run_id, id, now, owner known to be gone).
DELETE FROM flowneer_runs
WHERE id IN (
    SELECT id
    FROM (VALUES {rows}) AS new
    CROSS JOIN flowneer_runs ON id = new.column2
    WHERE (owner IS NULL OR lease_until <= new.column3 OR owner = new.column4)
)
RETURNING run_id, epoch
