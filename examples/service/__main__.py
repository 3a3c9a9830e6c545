"""Run the service in this process: `python -m examples.service`."""

import uvicorn

from .app import make_app
from .observing import log_as_json
from .settings import Settings

if __name__ == "__main__":
    log_as_json()
    settings = Settings.from_environment()
    # Requests get as long to end as the engine gives its steps.
    uvicorn.run(make_app(settings), port=settings.port, log_config=None, timeout_graceful_shutdown=10)
