-- Ask for runs to be cancelled: (run_id). Returns of each run whether it was asked, for one that is over is not. After a
-- lost answer it is asked again: whoever has claimed the run meanwhile is asked, too.
WITH locked AS MATERIALIZED (
    SELECT id, status IN ('running', 'waiting') AS is_open
    FROM unnest($1::text[]) AS new (run_id)
    JOIN {schema}.flowneer_runs AS runs ON runs.run_id = new.run_id
    ORDER BY id
    FOR NO KEY UPDATE OF runs
)
UPDATE {schema}.flowneer_runs AS runs
SET cancelling = is_open, wake = CASE WHEN is_open THEN {now} ELSE wake END
FROM locked
WHERE runs.id = locked.id
RETURNING runs.run_id, cancelling::int
