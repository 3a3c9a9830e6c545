-- Who owns any run; each is found by an index that holds nothing else.
WITH RECURSIVE owners AS (
    (SELECT owner FROM {schema}.flowneer_runs WHERE owner IS NOT NULL ORDER BY owner LIMIT 1)
    UNION ALL
    SELECT (SELECT owner FROM {schema}.flowneer_runs AS runs WHERE runs.owner > owners.owner ORDER BY owner LIMIT 1)
    FROM owners
    WHERE owner IS NOT NULL
)
SELECT owner FROM owners WHERE owner IS NOT NULL
