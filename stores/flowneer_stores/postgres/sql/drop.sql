-- Drop the versions of runs that none of those kept needs: (run_id, first as it was read, keep, since). Returns the new
-- first version.
WITH locked AS MATERIALIZED (
    SELECT id, first, new.keep, new.since,
           (SELECT max(seq) FROM {schema}.flowneer_versions WHERE run = id) AS head
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS new (run_id, was, keep, since)
    JOIN {schema}.flowneer_runs AS runs ON runs.run_id = new.run_id AND first = was
    ORDER BY id
    FOR NO KEY UPDATE OF runs
),
cut AS MATERIALIZED (
    SELECT id, COALESCE(
        (
            SELECT base FROM {schema}.flowneer_versions
            WHERE run = id AND seq = LEAST(
                GREATEST(first, head + 1 - GREATEST(keep, 1)),
                (
                    SELECT seq FROM {schema}.flowneer_versions
                    WHERE run = id AND timestamp >= since
                    ORDER BY seq
                    LIMIT 1
                )
            )
        ),
        first
    ) AS first
    FROM locked
),
dropped AS (
    DELETE FROM {schema}.flowneer_versions AS versions
    USING cut
    WHERE run = cut.id AND seq < cut.first
)
UPDATE {schema}.flowneer_runs AS runs
SET first = cut.first
FROM cut
WHERE runs.id = cut.id
RETURNING runs.run_id, runs.first
