"""The versions of a run over HTTP."""

from flowneer_async import FlowBuilder
from tests.web.service import Service, service


async def ended(at: Service) -> str:
    run_id = await at.started("order", {"item": "book"}, "waiting")
    await at.alice.post(f"/flows/order/runs/{run_id}/signals/approved", json={"by": "me"})
    await at.stands(run_id, "completed")
    return run_id


async def test_the_versions_of_a_run_are_listed_from_the_first_on() -> None:
    async with service() as at:
        run_id = await ended(at)
        page = (await at.alice.get(f"/runs/{run_id}/versions")).json()
        assert [each["version"] for each in page["versions"]] == [f"{run_id}@{seq}" for seq in range(5)]
        assert [each["step"] for each in page["versions"] if "@" not in each["step"]] == [
            "",
            "reserve",
            "approved",
            "ship",
        ]
        assert page["versions"][0]["parent"] is None
        assert page["versions"][1]["parent"] == f"{run_id}@0"
        assert page["next"] is None


async def test_versions_are_read_a_page_at_a_time() -> None:
    async with service() as at:
        run_id = await ended(at)
        seqs: list[int] = []
        after: int | None = -1
        while after is not None:
            page = (await at.alice.get(f"/runs/{run_id}/versions", params={"limit": 2, "after": after})).json()
            assert len(page["versions"]) <= 2
            seqs += [each["seq"] for each in page["versions"]]
            after = page["next"]
        assert seqs == [0, 1, 2, 3, 4]


async def test_a_state_is_read_as_it_was_at_any_version() -> None:
    async with service() as at:
        run_id = await ended(at)
        expected = {0: [], 1: ["reserved"], 4: ["reserved", "shipped"]}
        for seq, notes in expected.items():
            version = (await at.alice.get(f"/runs/{run_id}/versions/{seq}")).json()
            typed = (await at.alice.get(f"/flows/order/runs/{run_id}/state", params={"seq": seq})).json()
            assert version["version"]["seq"] == seq
            assert version["state"] == typed
            assert typed["notes"] == notes


async def test_what_a_version_changed_is_told_by_key() -> None:
    async with service() as at:
        run_id = await ended(at)
        diffs = [(await at.alice.get(f"/runs/{run_id}/versions/{seq}/diff")).json() for seq in (0, 1, 2, 3)]
        assert [each["changed"] for each in diffs] == [
            {"item": "book", "notes": [], "approval": None},
            {"notes": ["reserved"]},
            {},
            {"approval": {"by": "me", "amount": 0}},
        ]
        assert [each["parent"] for each in diffs] == [None, *(f"{run_id}@{seq}" for seq in (0, 1, 2))]


async def test_keys_that_are_gone_are_told() -> None:
    def forget(state: dict[str, object]) -> None:
        del state["a"]

    async with service([FlowBuilder("forget").start_with(forget)]) as at:
        run_id = await at.started("forget", {"a": 1, "b": 2})
        diff = (await at.alice.get(f"/runs/{run_id}/versions/1/diff")).json()
        assert (diff["changed"], diff["removed"]) == ({}, ["a"])


async def test_a_version_that_there_is_not_is_unknown() -> None:
    async with service() as at:
        run_id = await ended(at)
        for path in ("versions/99", "versions/99/diff", "versions/999999999999999999"):
            response = await at.alice.get(f"/runs/{run_id}/{path}")
            assert (response.status_code, response.json()["title"]) == (404, "Unknown version")


async def test_a_version_that_was_pruned_is_unknown_and_those_after_it_are_read() -> None:
    async with service() as at:
        run_id = await ended(at)
        await at.engine.store.drop(run_id, 1)
        first = (await at.alice.get(f"/runs/{run_id}")).json()["first"]
        if first:
            assert (await at.alice.get(f"/runs/{run_id}/versions/{first - 1}")).status_code == 404
        assert (await at.alice.get(f"/runs/{run_id}/versions/4")).json()["state"]["notes"] == ["reserved", "shipped"]


async def test_a_run_of_another_flow_is_not_found_under_this_one() -> None:
    async with service() as at:
        run_id = await ended(at)
        response = await at.alice.get(f"/flows/report/runs/{run_id}/state")
        assert (response.status_code, response.json()["type"]) == (404, "urn:flowneer-async:unknown-run")
