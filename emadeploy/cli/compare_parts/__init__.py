"""What `emadeploy compare` is put together from: its tables, and its pictures of where two networks differ."""
