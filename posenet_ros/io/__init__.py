"""Reads, writes and draws on images: photos, videos, bags, messages. Needs no ROS."""
