"""The ROS 2 node around the library. Only this room imports ROS.

An image: camera (subscribes) -> mailbox -> pipeline (runs the model) -> camera (publishes).
The node: node (lifecycle), node_parameters, parameters (the table), diagnostics, statistics.
The process: process, executor, log, unused_arguments. Launch files: launch_arguments, fastdds.
"""
