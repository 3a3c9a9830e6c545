import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

import httpx
import orjson
import pytest

from examples.service.app import make_app
from examples.service.settings import Settings
from flowneer_async.testing import FakeWorld
from tests.support import postgres
from tests.support.children import ENVIRONMENT, ROOT

LONGEST = 60.0  # seconds, after which something is wrong
ADDRESS = re.compile(r"running on (http://[\d.]+:\d+)")
LARGE = {"items": {"samovar": 1, "tea": 2}}
YES = {"granted": True, "by": "Ada"}
PAID = ["take 1 samovar, 2 tea", "charge 25880"]


class Told(NamedTuple):
    """An event of a run, as a client reads it."""

    id: str
    kind: str
    data: Any


class Service:
    """The service in a process of its own; the same files after a restart."""

    def __init__(self, folder: Path, database: str) -> None:
        self._outside, self._log = folder / "outside.db", folder / "log"
        self._environment = ENVIRONMENT | {"DATABASE": database, "OUTSIDE": str(self._outside), "PORT": "0"}
        self.pace = 0.0

    def start(self) -> None:
        with self._log.open("wb") as log:
            environment = self._environment | {"PACE": str(self.pace)}
            command = [sys.executable, "-m", "examples.service"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self._address = self._wait_for_address()

    def end(self, number: signal.Signals) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        return self.process.wait(LONGEST)

    def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.end(number)
        self.start()

    def client(self, token: str | None = "tea-please") -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self._address, headers=headers, timeout=LONGEST)

    def ordered(self, order: object) -> str:
        """The run id of a new order of the tea shop's."""
        return self._started("/orders", order)

    def reported(self, report: object) -> str:
        """The run id of a new report of the tea shop's."""
        return self._started("/flows/report/runs", report)

    def _started(self, path: str, body: object) -> str:
        with self.client() as client:
            response = client.post(path, json=body)
            assert response.status_code == 202, response.text
            return str(response.json()["run_id"])

    def events(self, run_id: str, after: str | None = None) -> Generator[Told]:
        """What is told of a run, as long as somebody reads on and the connection lasts."""
        headers = {} if after is None else {"Last-Event-ID": after}
        with self.client() as client, client.stream("GET", f"/runs/{run_id}/events", headers=headers) as response:
            assert response.status_code == 200
            yield from parsed(self._in_time(response.iter_lines()))

    def until(self, run_id: str, kind: str) -> list[Told]:
        """What is told until an event of this kind."""
        told: list[Told] = []
        with closing(self.events(run_id)) as events:
            for event in events:
                told.append(event)
                if event.kind == kind:
                    return told
        raise AssertionError(told)

    def state(self, flow: str, run_id: str) -> Any:
        with self.client() as client:
            return client.get(f"/flows/{flow}/runs/{run_id}/state").json()

    def effects(self) -> list[str]:
        """What was done outside, in order."""
        with closing(sqlite3.connect(self._outside)) as db:
            return [what for (what,) in db.execute("SELECT what FROM effects ORDER BY number")]

    def stock(self) -> dict[str, int]:
        with closing(sqlite3.connect(self._outside)) as db:
            return dict(db.execute("SELECT item, number FROM stock"))

    def log(self) -> list[Any]:
        return [orjson.loads(line) for line in self._log.read_bytes().splitlines()]

    def _in_time(self, lines: Iterator[str]) -> Iterator[str]:
        """The lines, while they come; a stream that only says that it is there still is not waited for."""
        latest = monotonic() + LONGEST
        for line in lines:
            assert monotonic() < latest, self._log.read_text()
            yield line

    def _wait_for_address(self) -> str:
        latest = monotonic() + LONGEST
        while monotonic() < latest and self.process.poll() is None:
            if found := ADDRESS.search(self._log.read_text()):
                return found[1]
            sleep(0.02)
        pytest.fail(self._log.read_text())


def parsed(lines: Iterator[str]) -> Iterator[Told]:
    """Events, as https://html.spec.whatwg.org/multipage/server-sent-events.html has them."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and fields:
            yield Told(fields["id"], fields["event"], orjson.loads(fields["data"]))
            fields = {}
        elif line and name:
            fields[name] = value


@pytest.fixture
def service(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service with its runs in a file, or where `request.param` says."""
    is_file = getattr(request, "param", "sqlite") == "sqlite"
    service = Service(tmp_path, str(tmp_path / "shop.db") if is_file else postgres.server().dsn)
    service.start()
    yield service
    service.process.kill()
    service.process.wait()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that is never restarted, and of which no test asks what others have done."""
    folder = tmp_path_factory.mktemp("shared")
    service = Service(folder, str(folder / "shop.db"))
    service.start()
    yield service
    service.process.kill()
    service.process.wait()


def test_a_small_order_goes_straight_through(service: Service) -> None:
    run_id = service.ordered({"items": {"tea": 2}})
    service.until(run_id, "completed")
    assert service.effects() == ["take 2 tea", "charge 980", "ship 2 tea"]
    assert service.state("order", run_id)["parcel"] == "parcel-3"


@pytest.mark.parametrize("service", ["sqlite", "postgres"], indirect=True)
def test_a_large_order_waits_for_its_approval_through_a_kill(service: Service) -> None:
    run_id = service.ordered(LARGE)
    service.until(run_id, "waiting")
    service.restart()
    with service.client() as client:
        found = client.get(f"/runs/{run_id}").json()
        assert (found["status"], found["waits"][0]["name"]) == ("waiting", "approval")
        assert client.post(f"/flows/order/runs/{run_id}/signals/approval", json=YES).status_code == 202
    service.until(run_id, "completed")
    assert service.effects() == [*PAID, "ship 1 samovar, 2 tea"]
    assert service.state("order", run_id)["approval"] == YES


def test_a_refused_order_is_undone(service: Service) -> None:
    before = service.stock()
    run_id = service.ordered(LARGE)
    service.until(run_id, "waiting")
    with service.client() as client:
        client.post(f"/flows/order/runs/{run_id}/signals/approval", json={**YES, "granted": False})
    service.until(run_id, "completed")
    assert service.effects() == [*PAID, "refund payment-2", "put back 1 samovar, 2 tea"]
    assert service.stock() == before
    assert service.state("order", run_id)["problem"] == "NotGranted in size/large/check_approval"


@pytest.mark.parametrize(
    ("items", "problem"), [({"glass": 1}, "Broken in ship"), ({"samovar": 9}, "OutOfStock in reserve")]
)
def test_an_order_that_fails_says_why_and_leaves_nothing_done(
    service: Service, items: dict[str, int], problem: str
) -> None:
    before = service.stock()
    run_id = service.ordered({"items": items})
    service.until(run_id, "completed")
    assert service.state("order", run_id)["problem"] == problem
    assert service.stock() == before


def test_a_client_can_neither_set_the_price_nor_approve_by_itself(shared: Service) -> None:
    order = {**LARGE, "cents": 1, "approval": YES}
    run_id = shared.ordered(order)
    shared.until(run_id, "waiting")
    state = shared.state("order", run_id)
    assert (state["cents"], state["approval"]) == (25880, None)
    with shared.client() as client:
        assert client.post("/flows/order/runs", json=order).status_code == 404


@pytest.mark.parametrize(
    "items", [{}, {"spoon": 1}, {"tea": 0}, {"tea": 101}, {"tea": "many"}], ids=lambda items: str(items)
)
def test_an_order_of_what_is_not_sold_is_refused(shared: Service, items: object) -> None:
    with shared.client() as client:
        assert client.post("/orders", json={"items": items}).status_code == 422


def test_the_same_order_sent_twice_is_one(shared: Service) -> None:
    headers = {"Idempotency-Key": "cart-7"}
    with shared.client() as client, shared.client("coffee-please") as other:
        first, second = (client.post("/orders", json=LARGE, headers=headers) for _ in range(2))
        assert first.json() == second.json()
        assert other.post("/orders", json=LARGE, headers=headers).json() != first.json()


def test_another_shop_knows_of_no_such_order(shared: Service) -> None:
    run_id = shared.ordered(LARGE)
    with shared.client("coffee-please") as client:
        assert client.get(f"/runs/{run_id}").status_code == 404
        assert client.get(f"/flows/order/runs/{run_id}/state").status_code == 404
        assert client.get(f"/runs/{run_id}/events").status_code == 404
        assert client.post(f"/flows/order/runs/{run_id}/signals/approval", json=YES).status_code == 404
        assert run_id not in client.get("/runs").text


def test_who_has_no_token_or_a_wrong_one_is_told_so(shared: Service) -> None:
    with shared.client(None) as nobody, shared.client("coffee") as wrong:
        assert [each.get("/runs").status_code for each in (nobody, wrong)] == [401, 401]
        assert nobody.get("/health").json()["is_ok"]


def test_a_page_is_let_in_by_its_cookie(shared: Service) -> None:
    with shared.client() as client, shared.client(None) as page:
        page.cookies = client.post("/login").cookies
        assert "EventSource" in page.get("/").text
        assert page.post("/login").status_code == 204
        assert page.get("/runs").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_report_is_told_without_a_gap_or_a_repeat_through_a_restart(service: Service, number: signal.Signals) -> None:
    service.pace = 0.05
    service.restart()
    run_id = service.reported({"title": "tea", "pages": 30})
    told: list[Told] = []
    with closing(service.events(run_id)) as events:
        told.extend(next(events) for _ in range(5))
    service.restart(number)
    told.extend(service.events(run_id, after=told[-1].id))
    assert pages_of(told) == [f"pages[{index}]/write" for index in range(30)]
    assert [event.kind for event in told[-2:]] == ["step", "completed"]
    assert len({event.id for event in told}) == len(told)
    text = service.state("report", run_id)["text"]
    assert text == [*(f"page {number}: all is well" for number in range(1, 31)), "the end of tea"]


def pages_of(told: Sequence[Told]) -> list[str]:
    return [event.data["step"] for event in told if event.kind == "step" and event.data["step"].startswith("pages[")]


def test_who_has_read_a_report_to_its_end_is_told_that_there_is_no_more(shared: Service) -> None:
    run_id = shared.reported({"title": "tea", "pages": 3})
    last = shared.until(run_id, "completed")[-1]
    with shared.client() as client:
        assert client.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": last.id}).status_code == 204


def test_the_service_ends_by_itself_when_it_is_told_to(service: Service) -> None:
    service.pace = 0.05
    service.restart()
    run_id = service.reported({"title": "tea", "pages": 200})
    with closing(service.events(run_id)) as events:
        next(events)
        assert service.end(signal.SIGTERM) in (0, -signal.SIGTERM)
        assert [event.kind for event in events if event.kind in ("failed", "cancelled")] == []


def test_logs_are_lines_of_json_that_name_runs_and_no_values(service: Service) -> None:
    run_id = service.reported({"title": "a secret title", "pages": 1})
    service.until(run_id, "completed")
    service.end(signal.SIGTERM)
    lines = service.log()
    assert [line["message"].split()[-1] for line in lines if line.get("flow_run") == run_id] == [
        "accepted",
        "begins",
        "completed",
    ]
    assert "secret" not in str(lines)


async def test_each_shop_has_a_report_of_every_night(tmp_path: Path) -> None:
    before = datetime(2026, 7, 1, 0, 59, 50, tzinfo=UTC)
    world = FakeWorld(round(before.timestamp() * 1000), held=True)
    settings = Settings(str(tmp_path / "shop.db"), str(tmp_path / "outside.db"), {"please": "tea"}, 0, 0.0)
    app = make_app(settings, world)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        client.headers["Authorization"] = "Bearer please"
        assert (await client.get("http://shop/runs")).json()["runs"] == []
        world.move(seconds=10)
        run_id = "nightly-tea:20260701T010000Z"
        state = await found(client, f"http://shop/flows/report/runs/{run_id}/state")
        assert state["title"] == "The night of 01 July 2026"


async def found(client: httpx.AsyncClient, url: str) -> Any:
    """What is there, as soon as it is."""
    for _ in range(1000):
        response = await client.get(url)
        if response.status_code == 200:
            return response.json()
    raise AssertionError(url)
