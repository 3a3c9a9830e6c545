SELECT DISTINCT owner FROM {schema}.flowneer_runs WHERE owner IS NOT NULL
