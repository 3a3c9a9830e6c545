"""A flow as others can read it: described in JSON, or drawn as a Mermaid flowchart, with a run's progress on it."""

from flowneer_async.picture.describe import Described, DescribedBody, DescribedStep, Json, describe
from flowneer_async.picture.mermaid import to_mermaid
from flowneer_async.picture.progress import Mark, Progress

__all__ = ["Described", "DescribedBody", "DescribedStep", "Json", "Mark", "Progress", "describe", "to_mermaid"]
