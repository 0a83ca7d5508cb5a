"""How a network is run. Crops and box decoding are in front of the engine; everything device-specific is behind it."""

from ckd_tracker_ros.engine.base import DeviceError, Engine, HostMaps, Prepared
from ckd_tracker_ros.engine.select import create, find_device, load, supported

__all__ = ["DeviceError", "Engine", "HostMaps", "Prepared", "create", "find_device", "load", "supported"]
