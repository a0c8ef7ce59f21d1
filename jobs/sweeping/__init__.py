"""Many trials of stage two from one query cache; `jobs/sweep.py` is the verb."""
