import importlib
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flowneer_async import Context, Waiting
from flowneer_async.answers import NO_ANSWER
from flowneer_async.testing import Effects, FakeWorld, crash_points
from flowneer_stores import MemoryStore

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES))
order = importlib.import_module("order")
order_flow = importlib.import_module("order_flow")
order_outside = importlib.import_module("order_outside")

ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT), str(ROOT / "stores")])
}
UNDONE = ["bank: refund payment 2", "warehouse: put back 1 samovar, 2 tea"]
SORRY = "mail: we are sorry, we cannot deliver: "
PAID = ["warehouse: take 1 samovar, 2 tea", "bank: charge 25880 cents for order-1"]
STOCK = {"tea": 100, "cup": 100, "samovar": 5, "glass": 5}

# The shop, killed with SIGKILL at all commits of its store, or every so many, before or after they are stored. Each
# command is a process of its own, forked, so that modules are imported once. Prints the databases of those killed.
MURDERED = """
import os, signal, sys
examples, folder, every, *commands = sys.argv[1:]
sys.path.insert(0, examples)
import order
from flowneer_stores import SqliteStore

def deadly(name, at, stored):
    real = getattr(SqliteStore, name)

    async def commit(self, *arguments):
        global commits
        commits += 1
        if commits == at and not stored:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await real(self, *arguments)
        if commits == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(SqliteStore, name, commit)

commits = 0

def run(db, words, at=0, stored=False):
    sys.stdout.flush()
    child = os.fork()
    if not child:
        deadly("create", at, stored)
        deadly("append", at, stored)
        os._exit(order.main(["--db", db, *words]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def killed(victim, at, stored):
    db = f"{folder}/{victim}-{at}-{stored}.db"
    for number, words in enumerate(commands):
        code = run(db, words.split(), at if number == victim else 0, stored)
        if number == victim:
            if code == 0:
                return False
            assert code == -signal.SIGKILL, code
            code = run(db, ["resume"])
        assert code == 0, code
    print("DB", db)
    return True

for victim in range(len(commands)):
    for stored in (False, True) if every == "1" else (False,):
        at = 1
        while killed(victim, at, stored):
            at += int(every)
"""

CHARGED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import order, order_outside

async def said(self, who, what, is_new):
    if who == "bank":
        os.kill(os.getpid(), signal.SIGKILL)

order_outside.Outside._said = said
order.main(sys.argv[2:])
"""


class Shop:
    def __init__(self, folder: Path) -> None:
        self.db = folder / "orders.db"

    def __call__(self, *words: str, code: int = 0) -> str:
        command = [sys.executable, "-W", "error", EXAMPLES / "order.py", "--db", self.db, *words]
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
        assert (done.returncode, bool(done.stderr)) == (code, bool(code)), done.stderr
        return done.stdout or done.stderr

    @property
    def effects(self) -> list[str]:
        return effects(self.db)

    @property
    def stock(self) -> dict[str, int]:
        return stock(self.db)


def effects(db: Path) -> list[str]:
    return [f"{who}: {what}" for who, what in rows(db, "SELECT who, what FROM effects ORDER BY number")]


def stock(db: Path) -> dict[str, int]:
    return dict(rows(db, "SELECT item, number FROM stock"))


def rows(db: Path, query: str) -> list[Any]:
    outside = sqlite3.connect(db.with_suffix(".outside.db"))
    try:
        return outside.execute(query).fetchall()
    finally:
        outside.close()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


# --- as it is used


def test_a_small_order_goes_straight_through(shop: Shop) -> None:
    """Nobody is asked; each effect happens once, in its order."""
    assert shop("start", "tea=2").splitlines()[-1] == "order-1 is on its way"
    assert shop.effects[:3] == ["warehouse: take 2 tea", "bank: charge 980 cents for order-1", "carrier: ship 2 tea"]
    assert sorted(shop.effects[3:]) == ["log: sold for 980 cents", "mail: on their way: tea"]
    assert shop.stock == STOCK | {"tea": 98}


def test_a_large_order_waits_until_another_process_approves_it(shop: Shop) -> None:
    """The first process ends; what it has done is not done again by the one that goes on."""
    assert "order-1 waits for an approval until" in shop("start", "samovar=1", "tea=2")
    assert shop.effects == PAID
    assert "order-1 waits for an approval" in shop("list")
    assert "waiting   size/large/approval" in shop("status", "order-1")

    assert shop("approve", "order-1").splitlines()[-1] == "order-1 is on its way"
    assert shop.effects[:2] == PAID
    assert Counter(shop.effects[2:]) == Counter(
        [
            "carrier: ship 1 samovar",
            "carrier: ship 2 tea",
            "log: sold for 25880 cents",
            "mail: on their way: samovar, tea",
        ]
    )
    assert "order-1 is on its way" in shop("list")


def test_a_refused_order_is_undone_in_reverse(shop: Shop) -> None:
    """The last thing done is undone first, each once, and then the customer is told."""
    shop("start", "samovar=1", "tea=2")
    assert "order-1 failed, and all was undone: NotGranted" in shop("refuse", "order-1")
    assert shop.effects == [*PAID, *UNDONE, f"{SORRY}NotGranted in size/large/check_approval"]
    assert shop.stock == STOCK


def test_what_breaks_on_the_way_is_undone_parcels_first(shop: Shop) -> None:
    """A lane that had finished is undone too; one that failed is not."""
    assert "all was undone: Broken in parcels[1]/ship" in shop("start", "tea=1", "glass=1", "cup=1")
    assert shop.effects[-5:-3] == ["carrier: bring back cup", "carrier: bring back tea"]
    assert shop.effects[-3:-1] == ["bank: refund payment 2", "warehouse: put back 1 tea, 1 glass, 1 cup"]
    assert shop.stock == STOCK


def test_what_is_out_of_stock_is_not_charged(shop: Shop) -> None:
    """The first step fails: there is nothing to undo."""
    shop("start", "tea=1", "samovar=9")
    assert shop.effects == [f"{SORRY}OutOfStock in reserve"]
    assert shop.stock == STOCK


def test_an_order_that_was_killed_may_be_approved_before_it_asks(shop: Shop) -> None:
    """A signal that comes early is kept."""
    kill_at_charge(shop, "start", "samovar=1", "tea=2")
    assert "order-1 is on its way" in shop("approve", "order-1")
    assert shop.effects[:2] == PAID


def test_the_bank_is_asked_and_not_charged_twice(shop: Shop) -> None:
    """Killed after the bank has charged and before that is stored, the order goes on without another charge."""
    kill_at_charge(shop, "start", "tea=2")
    assert "order-1 is under way, or was killed" in shop("list")
    assert "bank: order-1 was charged before" in shop("resume")
    assert shop.effects.count("bank: charge 980 cents for order-1") == 1


def kill_at_charge(shop: Shop, *words: str) -> None:
    """Kill the shop when the bank has just charged."""
    command = [sys.executable, "-c", CHARGED, EXAMPLES, "--db", shop.db, *words]
    assert subprocess.run(command, env=ENVIRONMENT, check=False).returncode == -9


def test_mistakes_are_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was typed wrongly, or comes too late, is no traceback."""
    said = {
        "start rum=1": "order: rum=1: say how many of tea, cup, samovar, glass, tea=2\n",
        "status order-7": "order: order-7: no such order, see list\n",
        "approve order-1": "order: nobody asks: order-1 is on its way\n",
    }
    main(tmp_path / "orders.db", FakeWorld(), "start", "tea=1")
    for words, expected in said.items():
        assert order.main(["--db", str(tmp_path / "orders.db"), *words.split()]) == 1
        assert capsys.readouterr().err == expected


def test_status_draws_the_flow(shop: Shop) -> None:
    """The picture is Mermaid, and shows where the order waits."""
    shop("start", "samovar=1")
    drawn = shop("status", "order-1", "--mermaid")
    assert drawn.startswith("flowchart TD")
    assert "waiting" in drawn


# --- time


def test_an_approval_that_does_not_come_in_time_undoes_the_order(tmp_path: Path) -> None:
    """When its patience is over, everything is undone in reverse, once each, however often one looks."""
    world, db = FakeWorld(), tmp_path / "orders.db"
    main(db, world, "start", "--patience", "60", "samovar=1", "tea=2")
    world.move(59)
    main(db, world, "resume")
    assert effects(db) == PAID
    world.move(1)
    for _ in range(3):
        main(db, world, "resume")
    assert effects(db) == [*PAID, *UNDONE, f"{SORRY}SignalTimeout in size/large/approval"]
    assert stock(db) == STOCK


def test_an_approval_that_comes_too_late_counts_for_nothing(tmp_path: Path) -> None:
    """What counts is when it was sent, not whether anybody has looked since the time was over."""
    world, db = FakeWorld(), tmp_path / "orders.db"
    main(db, world, "start", "--patience", "60", "samovar=1", "tea=2")
    world.move(61)
    main(db, world, "approve", "order-1")
    assert effects(db) == [*PAID, *UNDONE, f"{SORRY}SignalTimeout in size/large/approval"]


def main(db: Path, world: FakeWorld, *words: str) -> None:
    assert order.main(["--db", str(db), *words], world) == 0


# --- killed


STORIES = {
    "delivered": ["start tea=2 cup=1"],
    "refused": ["start samovar=1 tea=2", "refuse order-1"],
    "broken": ["start tea=1 glass=1"],
}


def test_killed_before_a_version_is_stored_an_order_ends_the_same(shop: Shop) -> None:
    """With SIGKILL, and gone on by another process: each effect is there once, the card is charged once."""
    assert killed_and_gone_on(shop, STORIES["refused"], every=5) >= 2


@pytest.mark.torture
@pytest.mark.parametrize("story", STORIES)
def test_killed_before_or_after_any_version_an_order_ends_the_same(shop: Shop, story: str) -> None:
    """The same at every version."""
    assert killed_and_gone_on(shop, STORIES[story], every=1) > 20


def killed_and_gone_on(shop: Shop, story: list[str], every: int) -> int:
    for words in story:
        shop(*words.split())
    wanted = Counter(shop.effects)
    command = [sys.executable, "-W", "error", "-c", MURDERED, EXAMPLES, shop.db.parent, str(every), *story]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    killed = [Path(line[3:]) for line in done.stdout.splitlines() if line.startswith("DB ")]
    for db in killed:
        assert (Counter(effects(db)), stock(db)) == (wanted, shop.stock), db.name
    return len(killed)


class Watched:
    """The world outside, in this process: it reports what is done there."""

    def __init__(self, effects: Effects) -> None:
        self._effects = effects

    def _do(self, key: str, what: str) -> None:
        run_id, _, step = key.partition("/")
        self._effects.do(Context(run_id, step, 1, None), what)

    async def take(self, items: Mapping[str, int], key: str) -> None:
        self._do(key, "take")

    async def put_back(self, items: Mapping[str, int], key: str) -> None:
        self._do(key, "put back")

    async def charge(self, run_id: str, cents: int) -> int:
        self._do(f"{run_id}/charge", "charge")
        return sum(effect.what == "charge" for effect in self._effects.all)

    async def payment_of(self, run_id: str) -> int | None:
        return 1 if self._effects.done(Context(run_id, "charge", 1, None), "charge") else None

    async def ship(self, number: int, item: str, key: str) -> None:
        if item == "glass":
            raise order_outside.Broken
        self._do(key, f"ship {item}")

    async def tell(self, who: str, what: str, key: str) -> None:
        self._do(key, f"{who}: {what}")


@pytest.mark.parametrize(
    ("items", "cents", "granted"),
    [({"tea": 2, "cup": 1}, 2180, None), ({"samovar": 1}, 24900, True), ({"samovar": 1}, 24900, False),
     ({"samovar": 1}, 24900, None), ({"tea": 1, "glass": 1}, 840, None)],
    ids=["small", "approved", "refused", "timed out", "broken"],
)  # fmt: skip
async def test_an_order_ends_the_same_wherever_its_process_dies(
    items: dict[str, int], cents: int, granted: bool | None
) -> None:
    """At each commit, before, after and unheard: the same state, no effect lost, and the card is charged once."""

    def reply(wait: Waiting) -> object:
        return NO_ANSWER if granted is None else {"granted": granted, "by": "Grace"}

    flow = order_flow.FLOW.with_versioned_checkpoint(MemoryStore())
    state = order_flow.Order(items, cents, patience=60)
    assert await crash_points(flow, state, reply=reply, deps=Watched) > 20
