"""What carries a pass to shards and their parts back; `morphogen.engine.sharded` adds these up."""
