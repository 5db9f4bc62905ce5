"""The one state machine, from records to rows, and its callers without a network."""
