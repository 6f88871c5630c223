"""From one epoch of a table to the next: what changes, under which name, by whose word."""
