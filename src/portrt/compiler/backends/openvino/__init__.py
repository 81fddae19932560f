"""Build side of OpenVINO."""
