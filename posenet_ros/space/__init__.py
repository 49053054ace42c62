"""Where people are, in metres: lenses, depth images, the usual size of people. Needs no ROS."""
