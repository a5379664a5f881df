"""The store: everything that was read, how it came, and what is still missing. SQLite or PostgreSQL, same code.

`open_store` opens it; `registry`, `readings` and `ledger` read it; `headend.ingest` is the one door for outcomes.
"""

from headend.store.engine import Store, open_store

__all__ = ["Store", "open_store"]
