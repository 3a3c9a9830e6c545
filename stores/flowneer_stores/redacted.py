"""A store that shows what another one holds without the secrets in it: for people, inspectors and exports."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from flowneer_async.differ import Change, Diff, Patch
from flowneer_async.encoding import JSON
from flowneer_async.errors import CorruptVersion, UnknownVersion
from flowneer_async.memory import SIGN
from flowneer_async.paging import pages
from flowneer_async.splice import Splice, splice_between
from flowneer_async.store import VersionStore
from flowneer_async.versions import Head, Signal, Texts, Version, apply, checked, grow
from flowneer_stores.read_only import ReadOnlyStore
from flowneer_stores.redacting import HIDDEN, Path, beneath, parse_path, redacted

_MOST_KEPT = 10_000
_SPLICE_HEAD = 24  # bytes that a splice costs beside its text


class RedactedStore(ReadOnlyStore):
    """What `store` holds, with the text "«redacted»" for each value that one of `paths` leads to; it is only read.

    A path is written `password`, `card.number`, `users[*].email`, `users[0]`, `*.token` or `["a key"].x`: `*` stands
    for any key of an object, `[*]` for any item of a list, and neither for the other. It hides values, no keys. What
    the engine remembers beside a state is left out, and all payloads of signals are hidden. Digests are made anew, so
    that what is given is a chain of its own; that of the original is checked first: raises CorruptVersion, BrokenChain.
    """

    def __init__(self, store: VersionStore, paths: Iterable[str]) -> None:
        super().__init__(store)
        self._paths = [parse_path(path) for path in paths]
        # By the digest of a keyframe as it is stored, the digest before it as it is shown: to begin there.
        self._before: dict[bytes, bytes] = {}

    async def chain(self, version: str) -> Sequence[Version]:
        return await self._shown(checked(version, await self._store.chain(version)))

    async def versions(self, run_id: str, first: int = 0, last: int | None = None) -> Sequence[Version]:
        while True:
            given = await self._store.versions(run_id, first, last)
            if not given:
                return ()
            try:
                before = () if given[0].is_keyframe else (await self._store.chain(given[0].id))[:-1]
            except UnknownVersion:
                continue  # dropped meanwhile
            rows = await self._shown(checked(given[-1].id, [*before, *given]))
            return rows[len(before) :]

    async def signals(self, run_id: str) -> Sequence[Signal]:
        return [replace(signal, payload=HIDDEN) for signal in await self._store.signals(run_id)]

    async def _shown(self, rows: Sequence[Version]) -> Sequence[Version]:
        """Rows as they are shown, the first of which is a keyframe."""
        walk = await self._walk_to(rows[0])
        return [self._show(walk, row) for row in rows]

    async def _walk_to(self, keyframe: Version) -> "_Walk":
        """A walk that has come to a keyframe: its digest depends on all that is before."""
        known = self._before.get(keyframe.digest)
        walk = _Walk(self._paths, known or b"")
        if known is None:
            first = (await self._store.read(keyframe.run_id)).first
            async for page in pages(self._store, keyframe.run_id, first, keyframe.seq - 1):
                if walk.expected != page[0].seq:
                    walk = _Walk(self._paths, self._before.get(page[0].digest, b""))
                for row in page:
                    self._show(walk, row)
        return walk

    def _show(self, walk: "_Walk", row: Version) -> Version:
        if row.is_keyframe:
            if len(self._before) >= _MOST_KEPT:
                del self._before[next(iter(self._before))]
            self._before[row.digest] = walk.digest
        return walk.show(row)


class _Walk:
    """One way along a chain, which goes on after a version whose digest is shown as `digest`."""

    def __init__(self, paths: Sequence[Path], digest: bytes) -> None:
        self.digest = digest
        self.expected = -1
        """The number of the next version."""
        self._paths = paths
        self._texts: Texts = {}
        self._shown: dict[str, bytes] = {}

    def show(self, row: Version) -> Version:
        """The next version, as it is shown."""
        head = Head(row.run_id, row.seq - 1, row.base, self.digest)
        body = self._body(row) if row.body else b""
        shown, _ = grow(head, body, row.is_keyframe, row.step_index, row.path, row.timestamp, row.fork_of)
        self.digest, self.expected = shown.digest, row.seq + 1
        return shown

    def _body(self, row: Version) -> bytes:
        try:
            apply(row, self._texts)
            sets, removed, splices = Patch.decode(row.body)
        except (ValueError, KeyError) as error:
            raise CorruptVersion(row.id, f"it cannot be folded: {type(error).__qualname__}") from error
        if row.is_keyframe:
            self._shown.clear()
        changes = {key: self._change(key, text, None) for key, text in sets.items() if key[:1] != SIGN}
        changes |= {key: self._change(key, b"", cut) for key, cut in splices.items() if key[:1] != SIGN}
        return Diff(changes, tuple(key for key in removed if key[:1] != SIGN), JSON).encode()

    def _change(self, key: str, new: bytes, spliced: Splice | None) -> Change:
        paths = beneath(self._paths, key)
        if not paths:
            return Change(new, spliced, False)
        text, before = self._texts[key], self._shown.get(key)
        shown = self._shown[key] = redacted(text if isinstance(text, bytes) else text.join(), paths)
        cut = None if spliced is None or before is None else splice_between(before, shown)
        return Change(shown, cut if cut is not None and len(cut.text) + _SPLICE_HEAD < len(shown) else None, False)
