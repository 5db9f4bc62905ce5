"""harvest and its peers side by side: the same frames, the same machine, one after the other in turn."""
