"""Floor 4: the command line. One module per command; each parses, calls one stage and prints."""
