"""Tables of the papers as data, and what runs their rows and judges their signs."""
