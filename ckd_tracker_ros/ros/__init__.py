"""The ROS 2 side: a thin shell around the tracker."""
