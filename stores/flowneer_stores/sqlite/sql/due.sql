-- At most ?5 of the runs that somebody should go on with at ?1: of the flows in ?2, of no key in ?3; the owners in ?4 are
-- dead. Each lane, all that has one flow and one priority, is read from its beginning in the order of an index; of those
-- that are due since another time than 0 that is all, for they wait.
WITH RECURSIVE lanes (flow, priority) AS (
    SELECT value, (SELECT max(priority) FROM flowneer_runs WHERE flow = value AND due IS NOT NULL)
    FROM json_each(?2)
    UNION ALL
    SELECT flow, (
        SELECT max(runs.priority) FROM flowneer_runs AS runs
        WHERE runs.flow = lanes.flow AND runs.priority < lanes.priority AND due IS NOT NULL
    )
    FROM lanes
    WHERE priority IS NOT NULL
),
found AS (
    SELECT id
    FROM lanes
    CROSS JOIN flowneer_runs ON id IN (
        SELECT id FROM flowneer_runs AS runs
        WHERE runs.flow = lanes.flow AND runs.priority = lanes.priority AND due <= ?1
          AND key NOT IN (SELECT value FROM json_each(?3))
          AND (due > 0 OR status = 'waiting' OR owner IS NULL OR lease_until <= ?1
               OR owner IN (SELECT value FROM json_each(?4)))
        ORDER BY due, id
        LIMIT ?5
    )
    ORDER BY flowneer_runs.priority DESC, due, id
    LIMIT ?5
)
SELECT run_id, flow, state_type, steps, status, error,
       COALESCE((SELECT max(seq) FROM flowneer_versions WHERE run = runs.id), -1),
       epoch, owner, created, updated, first, fork_of, tags, seal, wake, priority, key, begun, recoveries, cancelling
FROM found
CROSS JOIN flowneer_runs AS runs USING (id)
ORDER BY priority DESC, due, id
