-- Signals for runs, of each run one: (run_id, name, payload, sent, now). A trigger wakes up the runs. Returns the number
-- that each signal was given.
INSERT INTO flowneer_wakers (run_id, number, name, payload, sent, wake)
SELECT run_id, COALESCE((SELECT max(number) FROM flowneer_signals WHERE run = id), 0) + 1,
       column2, column3, column4, column5
FROM (VALUES {rows}) AS new
CROSS JOIN flowneer_runs ON run_id = new.column1
RETURNING run_id, number
