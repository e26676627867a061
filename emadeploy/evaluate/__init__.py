"""How good maps are: metrics against truth, the multi-task gain, and the agreement of two networks. numpy alone."""
