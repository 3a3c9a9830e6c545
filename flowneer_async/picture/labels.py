"""Any text as a label of a Mermaid diagram."""

import re

# Letters, digits, "/", single spaces inside, and "_" and "-" inside a word mean nothing to Mermaid, nor to the Markdown
# or the HTML that it makes of labels. All else is written as a number, and shown as what it was; and so is the space in
# "direction LR", which is a command even inside of quotes.
_SPECIAL = re.compile(r"^ | $|(?<= ) |(?<=direction) |(?<![^\W_])[_-]|[_-](?![^\W_])|[^\w /-]", re.IGNORECASE)


def label(text: str) -> str:
    """`text` in quotes, so that Mermaid shows it as it is, whatever is in it."""
    return f'"{_SPECIAL.sub(_as_number, text or " ")}"'


def _as_number(found: re.Match[str]) -> str:
    return f"#{ord(found[0])};"
