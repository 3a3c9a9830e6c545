-- Who owns any run; by an index that holds nothing else.
SELECT DISTINCT owner FROM flowneer_runs WHERE owner IS NOT NULL
