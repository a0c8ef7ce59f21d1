"""The parts of `jobs.estimate`: amounts of work, unit costs of this machine, the schedule of a cluster, the table."""
