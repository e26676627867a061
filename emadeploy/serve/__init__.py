"""Floor 3: artifacts behind HTTP, in the Open Inference Protocol. It needs the extra ``serve``."""
