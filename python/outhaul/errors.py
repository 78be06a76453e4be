"""What keeps a model from being converted."""


class ConversionError(Exception):
    """Says what is wrong and what to do about it; nothing has been written."""
