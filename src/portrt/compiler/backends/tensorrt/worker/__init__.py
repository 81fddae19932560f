"""The stand-alone engine builder, see build_engine.py."""
