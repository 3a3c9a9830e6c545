-- What is another one after each change of these runs: (a list of ids).
SELECT run_id, runs.id, epoch, first, cancelling, wake,
       (SELECT max(seq) FROM flowneer_versions WHERE run = runs.id),
       (SELECT max(number) FROM flowneer_signals WHERE run = runs.id)
FROM json_each(?) AS wanted
CROSS JOIN flowneer_runs AS runs ON run_id = wanted.value
