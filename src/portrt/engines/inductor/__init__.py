"""Run side of AOTInductor."""
