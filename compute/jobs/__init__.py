"""Jobs: what was asked for, the machine that gets it done, the journal that remembers it."""
