"""The stand-alone builder; see build_engine.py."""
