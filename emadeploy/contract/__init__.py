"""Floor 1: the records and conventions every stage agrees on. The standard library and numpy alone."""
