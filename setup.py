"""Installs the ROS-free library and the posenet command; see setup.cfg. On a robot: colcon."""

from setuptools import setup

setup()
