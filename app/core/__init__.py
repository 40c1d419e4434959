"""This package holds what every domain needs: settings, errors, database, ids, paging, clock, logging, the outbox."""
