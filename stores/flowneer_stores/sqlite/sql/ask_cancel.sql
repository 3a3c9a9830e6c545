-- Ask for runs to be cancelled: (run_id, now). Returns of each run whether it was asked, for one that is over is not.
UPDATE flowneer_runs
SET cancelling = status IN ('running', 'waiting'),
    wake = CASE WHEN status IN ('running', 'waiting') THEN new.column2 ELSE wake END
FROM (VALUES {rows}) AS new
WHERE run_id = new.column1
RETURNING run_id, cancelling
