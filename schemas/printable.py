"""Make text from exports safe to show: ids may hold anything that upstream sent, even control characters."""


def shown(text: str) -> str:
    r"""Return `text` with each character that is not printable as its Python escape: ESC is `\x1b`, a newline `\n`."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text)


def shortened(text: str, longest: int) -> str:
    """Return `text` cut to at most `longest` characters; a cut text ends in an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"
