"""Attacks on a real service over sockets: one module a kind. GRAFT_TEST_ATTACK=10 makes them ten times as large."""
