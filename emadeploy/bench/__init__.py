"""Floor 3: how fast, how much memory, how good; and the page that shows it. Sees only what ships: the runtime."""
