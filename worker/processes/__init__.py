"""Processes of this machine: started, talked to, watched and ended with all they started."""
