"""The ROS 2 shell around the library: nodes, messages, parameters, topics."""
