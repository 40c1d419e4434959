"""The same network behind other servers, each as its own documentation has it; none of these imports Graftwork."""
