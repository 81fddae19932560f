"""Build side of AOTInductor."""
