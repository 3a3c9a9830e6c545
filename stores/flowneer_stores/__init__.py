"""Stores for flowneer_async: where the versions of a run are kept."""
