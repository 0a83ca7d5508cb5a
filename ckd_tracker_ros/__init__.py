"""RGB-thermal target tracking for ROS 2: the student network of Coupled Knowledge Distillation (arXiv 2410.11586)."""

__version__ = "0.1.0"
