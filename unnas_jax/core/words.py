"""Words of lines and messages."""


def counted(number: int, noun: str) -> str:
    """A number with its noun, as in "1 image" and "2,100 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
