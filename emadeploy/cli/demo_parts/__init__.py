"""What `emadeploy demo` is put together from: its frames, stages, judgement, table and page."""
