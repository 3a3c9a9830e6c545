-- Drop the versions of runs that none of those kept needs: (run_id, first as it was read, keep, since).
-- A trigger deletes what lies before the new first version. Returns that.
UPDATE flowneer_runs
SET first = COALESCE(
    (
        SELECT base FROM flowneer_versions
        WHERE run = id AND seq = min(
            (SELECT max(first, max(seq) + 1 - new.column3) FROM flowneer_versions WHERE run = id),
            COALESCE(
                (SELECT seq FROM flowneer_versions WHERE run = id AND timestamp >= new.column4 ORDER BY seq LIMIT 1),
                9223372036854775807
            )
        )
    ),
    first
)
FROM (VALUES {rows}) AS new
WHERE run_id = new.column1 AND first = new.column2
RETURNING run_id, first
