"""Pure decisions about nodes.

Which PFs belong to which pool, which plan brings them to their spec, and which node may change when.
"""
