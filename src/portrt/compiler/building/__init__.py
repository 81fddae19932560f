"""Block to engines: built, cached, checked."""
