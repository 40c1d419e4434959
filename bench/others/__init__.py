"""Serve the same network by other servers, each as its own documentation has it; none of them imports Graftwork."""
