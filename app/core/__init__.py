"""Floor 0: what every domain stands on: settings, errors, database, ids, paging, clock, logging."""
