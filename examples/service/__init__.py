"""A shop as a service: orders that wait for an approval, long reports with their progress, a report every night.

    python -m examples.service              on port 8000, with its runs in shop.db; or: make service
    DATABASE=postgresql://… PORT=9000 …     elsewhere

Read orders.py and reports.py first, which say what is done, then app.py, which makes a service of it. Some things to
try, as the shop "tea", whose token is "tea-please":

    export AUTH="Authorization: Bearer tea-please" HERE=http://localhost:8000

    curl -H "$AUTH" --json '{"items": {"tea": 2}}' $HERE/orders          a small order goes straight through
    curl -H "$AUTH" --json '{"items": {"samovar": 1}}' $HERE/orders      a large one waits for an approval
    curl -H "$AUTH" $HERE/runs?status=waiting
    curl -H "$AUTH" --json '{"granted": true, "by": "you"}' $HERE/flows/order/runs/RUN/signals/approval
    curl -H "$AUTH" $HERE/flows/order/runs/RUN/state
    curl -H "$AUTH" -N $HERE/runs/RUN/events

    open $HERE in a browser         start a report; reload the page, kill the service, start it again: it goes on
    open $HERE/docs                 all routes
    {"items": {"glass": 1}}         glass breaks on the way: the card is refunded, the stock put back
    Authorization: Bearer coffee-please      another shop, which sees none of this
"""
