"""PNG pictures in asset metadata, as the UI shows them."""

import base64

import dagster as dg


def png(data: bytes, what: str) -> dg.MarkdownMetadataValue:
    """A picture inside Markdown; `what` is its text for those who can't see it."""
    return dg.MetadataValue.md(f"![{what}](data:image/png;base64,{base64.b64encode(data).decode('ascii')})")
