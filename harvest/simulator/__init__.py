"""A faithful local exchange, and its faults."""
