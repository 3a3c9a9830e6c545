-- The number of the schema that the tables have now.
INSERT INTO {schema}.flowneer_schema (version)
SELECT {version} WHERE NOT EXISTS (SELECT FROM {schema}.flowneer_schema);

UPDATE {schema}.flowneer_schema SET version = {version};
