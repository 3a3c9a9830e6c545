-- Signals for runs, of each run one: (run_id, name, payload, sent). Returns the number that each was given.
INSERT INTO flowneer_signals (run, number, name, payload, sent)
SELECT id, COALESCE((SELECT max(number) FROM flowneer_signals WHERE run = id), 0) + 1, column2, column3, column4
FROM (VALUES {rows}) AS new
CROSS JOIN flowneer_runs ON run_id = new.column1
RETURNING (SELECT run_id FROM flowneer_runs WHERE id = run), number
