"""The methods that MoMKD is compared with, one file a method."""
