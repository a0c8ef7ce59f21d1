"""The parts of the report page, one concept a file."""
