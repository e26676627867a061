"""Floor 3: frames from files and videos into the runtime, and its maps onto disk. Sees the runtime alone."""
