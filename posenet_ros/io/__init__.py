"""What images come from and go to: photos, videos, bags, messages, drawings. Needs no ROS."""
