"""What each version of a run has to be, by those before it: pure, and told one version after the other."""

import orjson

from flowneer_async.versions import DIGEST_SIZE, OPAQUE, Run, Texts, Version, apply, digest_of


class Links:
    """Checks the versions of a run in their order. What is wrong with one is not held against those after it."""

    __slots__ = ("_bases", "_digests", "_folds", "_run", "_run_id", "_texts", "expected")

    def __init__(self, run_id: str, first: int, run: Run | None = None) -> None:
        self._run_id, self._run = run_id, run
        self._texts: Texts = {}
        # What the digest of the version before the next one may be; and its base, if the next is no keyframe.
        self._digests: tuple[bytes, ...] = ()
        self._bases: tuple[int, ...] | None = None
        self._folds = False
        self.expected = first
        """The number of the next version."""
        self.begin(first)

    def begin(self, seq: int) -> None:
        """The next version is number `seq`, the first one kept."""
        self.miss(seq)
        self._bases = ()
        if seq == 0:
            self._digests = (b"",)

    def miss(self, seq: int) -> None:
        """The next version is number `seq`, and nothing is known of those before it."""
        self.expected = seq
        self._digests, self._bases, self._folds = (), None, False
        self._texts.clear()

    def check(self, version: Version) -> str | None:
        """What is wrong with the next version."""
        run_id, seq, base, fork_of, step_index, path, timestamp, body, parent_digest, digest = version
        keyframe, own = base == seq, digest[:DIGEST_SIZE]
        parents = self._digests or ((parent_digest,) if keyframe else ())
        made = [digest_of(parent, run_id, seq, base, fork_of, step_index, path, timestamp, body) for parent in parents]
        reason = None
        if run_id != self._run_id:
            reason = "it is one of another run"
        elif (made and own not in made) or (own != digest and not self._may_be_signed(digest)):
            reason = "its digest is not that of its content"
        elif parent_digest not in (parents if keyframe else (b"",)):
            reason = "its parent digest is not the digest of the version before it"
        elif not keyframe and self._bases is not None and base not in self._bases:
            reason = "its base is not the last keyframe" if self._bases else "it is the first version, and no keyframe"
        elif seq and fork_of is not None:
            reason = "it is the root of a fork, and not number 0"
        elif seq == 0 and self._run is not None and fork_of != self._run.fork_of:
            reason = f"it is a fork of {fork_of}, and its run one of {self._run.fork_of}"
        return self._take(version, made, reason)

    def check_values(self) -> str | None:
        """What is wrong with the state of the last version, as far as it is known."""
        for key, text in self._texts.items():
            try:
                orjson.loads(text if isinstance(text, bytes) else text.join())
            except ValueError:
                return f"the value of {key!r} is no JSON"
        return None

    def _take(self, version: Version, made: list[bytes], reason: str | None) -> str | None:
        keyframe = version.base == version.seq
        if reason is None and (self._folds or keyframe):
            reason = self._fold(version)
        self.expected = version.seq + 1
        if reason is None:
            self._digests, self._bases = (version.digest[:DIGEST_SIZE],), (version.base,)
            return None
        # Which of its fields is damaged is not known: those after it may build on what it is, or on what it was.
        self._digests = (version.digest[:DIGEST_SIZE], *made)
        self._bases = (*(self._bases or ()), version.seq, version.base)
        self._folds = False
        self._texts.clear()
        return reason

    def _may_be_signed(self, digest: bytes) -> bool:
        """May what stands behind the digest be the signature of a wrapper, which seals its runs, too?"""
        return len(digest) == 2 * DIGEST_SIZE and (self._run is None or self._run.seal != b"")

    def _fold(self, version: Version) -> str | None:
        if version.body.startswith(OPAQUE):
            self._folds = False
            self._texts.clear()
            return None
        try:
            apply(version, self._texts)
        except Exception as error:  # whatever comes of a body that is damaged
            return f"it cannot be folded ({type(error).__qualname__})"
        self._folds = True
        return None
