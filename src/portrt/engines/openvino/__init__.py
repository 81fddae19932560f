"""Run side of OpenVINO."""
