# Made by tools/release/make_stubs.py from the module's source.
"""The form of keys (docs/protocol.md, section 4): what is checked before one is used."""

MAX_PAGES: int
