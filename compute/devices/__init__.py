"""Running tasks: the interface of a device, and the devices."""
