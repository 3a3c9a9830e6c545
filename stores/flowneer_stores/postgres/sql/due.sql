-- At most $4 of the runs that somebody should go on with now: of the flows $1, of none of the keys $2; the owners $3 are
-- dead. Each lane, all that has one flow and one priority, is read from its beginning in the order of an index.
WITH RECURSIVE clock AS MATERIALIZED (
    SELECT {now} AS now
),
lanes AS (
    SELECT flow, (
        SELECT max(priority) FROM {schema}.flowneer_runs AS runs WHERE runs.flow = wanted.flow AND due IS NOT NULL
    ) AS priority
    FROM unnest($1::text[]) AS wanted (flow)
    UNION ALL
    SELECT flow, (
        SELECT max(priority) FROM {schema}.flowneer_runs AS runs
        WHERE runs.flow = lanes.flow AND runs.priority < lanes.priority AND due IS NOT NULL
    )
    FROM lanes
    WHERE priority IS NOT NULL
),
found AS MATERIALIZED (
    SELECT id
    FROM clock
    CROSS JOIN lanes
    CROSS JOIN LATERAL (
        SELECT id, due FROM {schema}.flowneer_runs AS runs
        WHERE runs.flow = lanes.flow AND runs.priority = lanes.priority AND due <= now
          AND key <> ALL ($2::text[])
          AND (status = 'waiting' OR owner IS NULL OR lease_until <= now OR owner = ANY ($3::text[]))
        ORDER BY due, id
        LIMIT $4
    ) AS first
    ORDER BY priority DESC, due, id
    LIMIT $4
)
SELECT run_id, flow, state_type, steps, status, error,
       COALESCE((SELECT max(seq) FROM {schema}.flowneer_versions WHERE run = id), first - 1),
       epoch, owner, created, updated, first, fork_of, tags::text, seal, wake, priority, key, begun, recoveries, cancelling
FROM found
JOIN {schema}.flowneer_runs USING (id)
ORDER BY priority DESC, due, id
