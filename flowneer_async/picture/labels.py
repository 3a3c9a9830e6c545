"""Any text as a label of a Mermaid diagram."""

import re

# What means nothing to Mermaid, to the Markdown or the HTML that it makes of labels, wherever it stands: letters,
# digits, "/"; and single spaces, "_" and "-" between these. All else is written as a number, which Mermaid turns back.
_SPECIAL = re.compile(r"(?<![^\W_])[ _-]|[ _-](?![^\W_])|[^\w /-]|ﬂ")


def label(text: str) -> str:
    """`text` in quotes, so that Mermaid shows it as it is, whatever is in it."""
    return f'"{_SPECIAL.sub(_as_number, text or " ")}"'


def _as_number(found: re.Match[str]) -> str:
    return f"#{ord(found[0])};"
