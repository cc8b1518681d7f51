"""Where photos come from and results go, and the record of a run."""
