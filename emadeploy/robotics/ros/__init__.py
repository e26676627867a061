"""ROS messages from and to numpy, for bags and for a running node: every function takes the maker of messages."""
