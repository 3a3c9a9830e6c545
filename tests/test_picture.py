"""Pictures of a flow: what is described is all there, and what is drawn is read by Mermaid itself."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import mermaidx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowneer_async.outline import Inner, fingerprint, kind_of, located, paths
from flowneer_async.picture import Described, DescribedBody, DescribedStep, Progress, describe, to_mermaid
from flowneer_async.policy import Backoff
from tests.support.bodies import (
    NASTY,
    AnyBody,
    anchor,
    ask,
    batch,
    bodies,
    body,
    branch,
    call,
    loop,
    marked,
    names,
    parallel,
    sleep,
    sub,
    task,
    wait,
)
from tests.support.mermaid import Chart, NotMermaid, read
from tests.support.trees import LONG, QUICK

SOME = settings(QUICK, max_examples=30)  # each takes the tenth of a second
MANY = settings(LONG, max_examples=600)
FEW = settings(LONG, max_examples=30)
DOCS = Path(__file__).resolve().parent.parent / "docs"


def drawn(*nodes: Any, on_error: AnyBody | None = None, progress: Progress | None = None) -> Chart:
    return read(to_mermaid("flow", body(*nodes, on_error=on_error), progress))


def described(*nodes: Any) -> DescribedStep:
    """The only step of a flow."""
    (step,) = describe("flow", body(*nodes))["steps"]
    return step


def steps(inner: Described | DescribedBody) -> Iterator[DescribedStep]:
    """The steps of a description, depth first."""
    for step in inner["steps"]:
        yield step
        for each in step.get("bodies", []):
            yield from steps(each)
    if "on_error" in inner:
        yield from steps(inner["on_error"])


# Paths and the fingerprint --------------------------------------------------------------------------------------------


def test_every_kind_of_body_has_its_place_in_a_path() -> None:
    """As in a cursor: the case of a branch and `@error` stand between; lanes, items and iterations stand as nothing."""
    flow = body(
        branch("route", {"big": body("charge"), "a/b": body("c")}, body("other")),
        loop("poll", body("ask")),
        batch("emails", body("send")),
        parallel("fan", body("a"), body("b")),
        sub("sub", body("in", on_error=body("notify"))),
        on_error=body("page"),
    )
    assert paths(flow) == (
        *("route", "route/big/charge", "route/a%2Fb/c", "route/default/other"),
        *("poll", "poll/ask", "emails", "emails/send", "fan", "fan/a", "fan/b"),
        *("sub", "sub/in", "sub/@error/notify", "@error/page"),
    )


def test_a_path_that_two_lanes_share_is_there_once() -> None:
    """Their numbers are known at run time only."""
    assert paths(body(parallel("fan", body("a", "b"), body("b", "c")))) == ("fan", "fan/a", "fan/b", "fan/c")


def test_the_fingerprint_of_a_flow_is_the_same_in_every_process() -> None:
    """It is stored with runs."""
    flow = body("fetch", loop("poll", body("ask")), parallel("fan", body("a"), body("b")), on_error=body("notify"))
    assert fingerprint(flow) == "cfbd599e6859d44a"


@pytest.mark.parametrize(
    "changed",
    [
        body("b", "a"),
        body("a"),
        body("a", "c"),
        body("a", anchor("b")),
        body("a", "b", on_error=body("c")),
        body(sub("a", body("b"))),
    ],
)
def test_the_fingerprint_tells_apart_flows_of_other_steps(changed: AnyBody) -> None:
    """Names, kinds, order and nesting count."""
    assert fingerprint(changed) != fingerprint(body("a", "b"))


def test_the_fingerprint_tells_which_lane_a_step_is_in() -> None:
    """Though the paths are the same."""
    one, other = parallel("fan", body("a", "b"), body("c")), parallel("fan", body("a"), body("b", "c"))
    assert fingerprint(body(one)) != fingerprint(body(other))


def test_the_fingerprint_does_not_depend_on_code_or_options() -> None:
    """A function may be mended, and a timeout set, while runs are stored."""
    assert fingerprint(body(task("a", retries=3, compensate=ask))) == fingerprint(body("a"))


# Descriptions ---------------------------------------------------------------------------------------------------------


def test_only_options_that_are_set_are_described() -> None:
    """What has its default says nothing."""
    assert described("fetch") == {"name": "fetch", "path": "fetch", "kind": "task", "options": {}}


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (task("a", retries=3, timeout=1.5, delay=lambda state: 1), {"retries": 3, "timeout": 1.5, "delay": "function"}),
        (task("a", delay=Backoff(1)), {"delay": {"first": 1, "factor": 2.0, "most": 60.0, "jitter": 1.0}}),
        (task("a", delivery="at_most_once", verify=ask), {"delivery": "at_most_once", "verify": "function"}),
        (task("a", compensate=ask, fallback=ask), {"compensate": "function", "fallback": "function"}),
        (task("a", aliases=["old", "older"]), {"aliases": ["old", "older"]}),
        (anchor("a", 3), {"max_visits": 3}),
        (sleep("a", 2.5), {"until": 2.5}),
        (sleep("a", timedelta(minutes=1)), {"until": 60.0}),
        (sleep("a", datetime(2030, 1, 1, tzinfo=UTC)), {"until": "2030-01-01T00:00:00+00:00"}),
        (sleep("a", ask), {"until": "function"}),
        (wait("a"), {"signal": "a"}),
        (
            wait("a", into="it", schema=Backoff, timeout=3),
            {"signal": "a", "into": "it", "schema": "Backoff", "timeout": 3},
        ),
        (wait("a", schema=list[int]), {"signal": "a", "schema": "list[int]"}),
        (wait("a", schema=partial(ask)), {"signal": "a", "schema": "function"}),
    ],
)
def test_options_are_plain_values(step: Any, options: dict[str, Any]) -> None:
    """Functions are called so, types by their names, moments in ISO 8601, times in seconds."""
    assert described(step)["options"] == options


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (branch("a", {"x": body("y")}), {"router": "function"}),
        (loop("a", body("b")), {"condition": "function"}),
        (
            batch("a", body("b"), concurrency=4, max_failures=2),
            {"items": "function", "concurrency": 4, "max_failures": 2},
        ),
        (
            parallel("a", body("b"), reducer={"n": sum}, on_error="wait"),
            {"reducer": {"n": "function"}, "on_error": "wait"},
        ),
    ],
)
def test_options_of_steps_with_bodies_are_plain_values(step: Any, options: dict[str, Any]) -> None:
    """The bodies themselves are none of them."""
    assert described(step)["options"] == options


def test_the_bodies_of_a_step_say_which_they_are() -> None:
    """By their case, or by the number and the label of their lane."""
    cases = described(branch("route", {"big": body("a")}, body("b"))).get("bodies", [])
    assert [each.get("case") for each in cases] == ["big", "default"]
    lanes = described(parallel("fan", body("a"), body("a"), labels=["left", "right"])).get("bodies", [])
    assert [(each.get("lane"), each.get("label"), each["steps"][0]["path"]) for each in lanes] == [
        (0, "left", "fan/a"),
        (1, "right", "fan/a"),
    ]


def test_jumps_that_an_annotation_names_are_described() -> None:
    """Those of the step, and of what takes its place."""
    assert described(task("a", "again", "out")).get("jumps") == ["again", "out"]
    assert described(wait("a", fallback=call(task("b", "out").call))).get("jumps") == ["out"]


def test_progress_gives_every_step_a_status() -> None:
    """Where a step is in several sets, what went wrong comes first; a step in none is ahead."""
    flow = body("a", "b", "c", "d", "e", sub("f", body("g")))
    progress = Progress(
        frozenset("abcd") | {"f/g"}, current=frozenset("bcd"), failed=frozenset("d"), waiting=frozenset("cd")
    )
    found = {step["path"]: step.get("status") for step in steps(describe("flow", flow, progress))}
    assert found == {
        **{"a": "done", "b": "current", "c": "waiting", "d": "failed", "e": "ahead"},
        **{"f": "ahead", "f/g": "done"},
    }


@SOME
@given(bodies, names)
def test_a_description_holds_every_step_once_and_is_json(flow: AnyBody, name: str) -> None:
    """In the order of the paths, each with its kind."""
    found = describe(name, flow)
    assert json.loads(json.dumps(found)) == found
    expected = [(place.path, kind_of(place.node)) for place in located(Inner("", flow))]
    assert [(step["path"], step["kind"]) for step in steps(found)] == expected
    assert paths(flow) == tuple(dict.fromkeys(step["path"] for step in steps(found)))


# Diagrams -------------------------------------------------------------------------------------------------------------


def test_the_parser_of_these_tests_refuses_what_is_no_diagram() -> None:
    """Else they would prove nothing."""
    with pytest.raises(NotMermaid, match="Parse error on line 2"):
        read('flowchart TD\n    a["x"] --> b[[c]\n')


def test_steps_follow_one_another() -> None:
    """From the name of the flow to its end."""
    chart = drawn("a", "b")
    assert [(arrow.start, arrow.end) for arrow in chart.arrows] == [("start", "s1"), ("s1", "s2"), ("s2", "finish")]
    assert [chart.boxes[id].text for id in ("start", "s1", "s2", "finish")] == ["flow", "a", "b", "end"]


def test_a_branch_is_a_diamond_with_an_arrow_for_each_case() -> None:
    """They meet again after it; where there is no default, none leads past it."""
    chart = drawn(branch("route", {"big": body("a"), "small": body("b")}, body("c")), "after")
    assert chart.boxes["s1"].shape == "diamond"
    assert [chart.leads("s1", case).text for case in ("s2", "s3", "s4")] == ["big", "small", "default"]
    assert {arrow.start for arrow in chart.arrows if arrow.end == "s5"} == {"s2", "s3", "s4"}


def more(state: dict[str, Any]) -> bool:
    return False


def test_a_loop_is_a_group_with_an_arrow_back_that_names_its_condition() -> None:
    """The condition is asked first, so the flow goes on from there."""
    chart = drawn(loop("poll", body("a", "b"), more), "after")
    assert chart.groups["s1"].text == "poll"
    assert {chart.boxes[id].group for id in ("h1", "s2", "s3")} == {"s1"}
    assert chart.boxes["h1"].text == "while more"
    assert chart.leads("s3", "h1").text == "more"
    assert chart.leads("h1", "s2").text == "yes"
    assert chart.leads("h1", "s4").text == "no"


def test_a_batch_is_a_group_that_says_what_it_goes_through() -> None:
    """And how many items are done at once."""
    chart = drawn(batch("emails", body("send"), concurrency=4), "after")
    assert (chart.groups["s1"].text, chart.boxes["f1"].text) == ("emails", "each of ask, 4 at once")
    assert [(arrow.start, arrow.end) for arrow in chart.arrows[1:4]] == [("f1", "s2"), ("s2", "j1"), ("j1", "s3")]


def test_lanes_stand_side_by_side_between_a_fork_and_a_join() -> None:
    """Each in a group with its label, in that of the whole."""
    chart = drawn(parallel("fan", body("a"), body("a", "b"), labels=["left", "right"]), "after")
    assert {id: (each.text, each.group) for id, each in chart.groups.items()} == {
        "s1": ("fan", None),
        "l1_0": ("left", "s1"),
        "l1_1": ("right", "s1"),
    }
    assert {chart.boxes[id].group for id in ("f1", "j1")} == {"s1"}
    assert {arrow.end for arrow in chart.arrows if arrow.start == "f1"} == {"s2", "s3"}
    assert {arrow.start for arrow in chart.arrows if arrow.end == "j1"} == {"s2", "s4"}


def test_an_anchor_is_a_circle_that_jumps_lead_to() -> None:
    """Dotted, forwards and backwards, out of a nested body too."""
    chart = drawn(anchor("again"), loop("poll", body(task("a", "again", "out"))), anchor("out"))
    assert chart.boxes["s1"].shape == "circle"
    back, forth = chart.leads("s3", "s1"), chart.leads("s3", "s4")
    assert (back.text, back.dotted, forth.text, forth.dotted) == ("#again", True, "#out", True)


@pytest.mark.parametrize(
    "inside",
    [
        parallel("fan", body(task("a", "again"))),
        batch("each", body(task("a", "again")), concurrency=2),
    ],
)
def test_no_jump_is_drawn_out_of_a_lane(inside: Any) -> None:
    """For none can leave it."""
    assert not any(arrow.dotted for arrow in drawn(anchor("again"), inside).arrows)


def test_a_jump_goes_to_the_anchor_of_the_innermost_body() -> None:
    """Two cases of a branch may each have one of the same name; so may a body and its `on_error`."""
    cases = {case: body(anchor("again"), task("a", "again")) for case in ("x", "y")}
    chart = drawn(branch("route", cases))
    assert [(arrow.start, arrow.end) for arrow in chart.arrows if arrow.dotted] == [("s3", "s2"), ("s5", "s4")]
    chart = drawn(anchor("again"), on_error=body(anchor("again"), task("a", "again")))
    assert chart.leads("s3", "s2").text == "#again"


def test_steps_that_wait_have_shapes_of_their_own() -> None:
    """A time is a hexagon, a signal a stadium."""
    chart = drawn(sleep("nap"), wait("approval"))
    assert [chart.boxes[id].shape for id in ("s1", "s2")] == ["hexagon", "stadium"]


def refund(state: dict[str, Any]) -> None: ...


def test_what_undoes_a_step_stands_aside_of_it() -> None:
    """Dashed; the flow does not go on from there."""
    chart = drawn(task("charge", compensate=refund), "after")
    assert (chart.boxes["u1"].text, chart.boxes["u1"].classes) == ("refund", {"aside"})
    assert (chart.leads("s1", "u1").text, chart.leads("s1", "u1").dotted) == ("undo", True)
    assert not any(arrow.start == "u1" for arrow in chart.arrows)


def test_the_flow_goes_on_from_a_fallback() -> None:
    """As from the step that it takes the place of."""
    chart = drawn(wait("approval", fallback=call(refund)), "after")
    assert (chart.leads("s1", "b1").text, chart.leads("s1", "b1").dotted) == ("fallback", True)
    assert {arrow.start for arrow in chart.arrows if arrow.end == "s2"} == {"s1", "b1"}


def test_what_is_done_on_an_error_is_a_dashed_group() -> None:
    """Any step of the body leads there, and the flow goes on after it."""
    chart = drawn(sub("pay", body("a", "b", on_error=body("notify"))), "after")
    assert (chart.groups["e1"].text, chart.groups["e1"].classes) == ("on error", {"aside"})
    assert {chart.boxes[id].group for id in ("s2", "s3")} == {"t1"}
    assert {chart.groups[id].group for id in ("t1", "e1")} == {"s1"}
    assert (chart.leads("t1", "s4").text, chart.leads("t1", "s4").dotted) == ("error", True)
    assert {arrow.start for arrow in chart.arrows if arrow.end == "s5"} == {"s3", "s4"}


def test_progress_colours_boxes_and_groups() -> None:
    """Steps that are still ahead have no colour, and colours that are not needed are not there."""
    progress = Progress(frozenset({"a"}), current=frozenset({"poll"}), waiting=frozenset({"poll/b"}))
    chart = drawn("a", loop("poll", body("b")), "c", progress=progress)
    assert [chart.boxes[id].classes for id in ("s1", "s3", "s4")] == [{"done"}, {"waiting"}, set()]
    assert chart.groups["s2"].classes == {"current"}
    assert "failed" not in to_mermaid("flow", body("a"), progress)


@pytest.mark.parametrize("name", NASTY)
def test_any_name_is_shown_as_it_is(name: str) -> None:
    """As the name of a flow, a step, a group, a case and an anchor, and whatever it means to Mermaid."""
    flow = body(anchor(name), sub("s", body(task(name, name))), branch("b", {name: body(loop(name, body("x")))}))
    chart = read(to_mermaid(name, flow))
    shown = [chart.boxes[id].text for id in ("start", "s1", "s3")] + [chart.groups["s5"].text]
    assert [*shown, chart.leads("s4", "h5").text, chart.leads("s3", "s1").text] == [name] * 5 + [f"#{name}"]


def test_a_diagram_holds_no_markup_of_a_name() -> None:
    """Whatever page it is put into: a name cannot end a fence, a tag or a string."""
    text = to_mermaid("</pre><script>", body('```"', "%%{init: 1}%%", "a@{shape: b}"))
    assert not re.search(r"[<`@]|%%|script>|init:|\"\"", text)


def reachable(arrows: list[tuple[str, str]], start: str, chart: Chart) -> set[str]:
    """The boxes that arrows lead to; one from a group leads on from any box in it."""
    found, todo = set[str](), [start]
    while todo:
        id: str | None = todo.pop()
        while id is not None and id not in found:
            found.add(id)
            todo += [end for begin, end in arrows if begin == id]
            around = chart.boxes.get(id) or chart.groups.get(id)
            id = None if around is None else around.group
    return found


def assert_drawn_whole(name: str, flow: AnyBody, progress: Progress | None) -> None:
    """Every step is there once, by its name, in its colour; all can be reached, and the end from all."""
    chart, expected = read(to_mermaid(name, flow, progress)), dict(enumerate(located(Inner("", flow)), 1))
    alone = {id: box for id, box in chart.boxes.items() if id not in chart.groups} | chart.groups
    found = {int(id[1:]): box for id, box in alone.items() if re.fullmatch(r"s\d+", id)}
    assert {number: box.text for number, box in found.items()} == {n: each.node.name for n, each in expected.items()}
    for number, place in expected.items():
        mark = "ahead" if progress is None else progress.mark(place.path)
        assert found[number].classes == (set() if mark == "ahead" else {mark})
    arrows = [(arrow.start, arrow.end) for arrow in chart.arrows]
    boxes = {id for id in alone if id not in chart.groups}
    assert boxes <= reachable(arrows, "start", chart)
    backwards = [(end, start) for start, end in arrows]
    ends = {id for id in boxes if id[0] == "u"}
    assert boxes - ends <= reachable(backwards, "finish", chart)
    assert max(Counter(chart.arrows).values()) == 1


@SOME
@given(bodies, names, st.data())
def test_every_flow_is_drawn_whole(flow: AnyBody, name: str, data: st.DataObject) -> None:
    """Whatever it is made of, and however its steps are called, Mermaid reads it."""
    assert_drawn_whole(name, flow, data.draw(st.none() | marked(paths(flow))))


@pytest.mark.torture
@MANY
@given(bodies, names, st.data())
def test_every_flow_is_drawn_whole_in_many_ways(flow: AnyBody, name: str, data: st.DataObject) -> None:
    """The same, for longer."""
    assert_drawn_whole(name, flow, data.draw(st.none() | marked(paths(flow))))


@pytest.mark.torture
@FEW
@given(bodies, names)
def test_every_flow_can_be_laid_out(flow: AnyBody, name: str) -> None:
    """Mermaid finds a place for every box, which some arrows between groups would make impossible."""
    assert mermaidx.render(to_mermaid(name, flow)).svg().count("<svg") == 1


# The page -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_mermaid_reads_every_diagram_of_the_docs(page: Path) -> None:
    """Each is what an example of its page has printed."""
    text = page.read_text("utf-8")
    for diagram in re.findall(r"^```mermaid\n(.*?)^```$", text, re.M | re.S):
        assert f"```text\n{diagram}```" in text
        read(diagram)
