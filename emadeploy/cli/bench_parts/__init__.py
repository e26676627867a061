"""What `emadeploy bench` is put together from: its order, engines, rows, table and pages."""
